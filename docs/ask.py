"""The questions that newcomers come with, asked of the built site in a real browser.

``python docs/ask.py FOLDER`` needs PyQt6-WebEngine (``make look``). Each question is put to the site's own search;
the page that answers it must be the first hit, or one click from the start page.
"""

import json
import sys
from pathlib import Path

from look import wait
from PyQt6.QtCore import QEventLoop, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

ANSWERS = {
    "how do I tune dropout in Flax": {"how-to/dropout", "how-to/flax"},
    "resume after a crash": {"how-to/resume"},
    "which checkpoint policy": {"how-to/fit-into-memory"},
    "why is my hypergradient NaN": {"how-to/errors"},
    "a rate per layer": {"how-to/rates-per-layer"},
    "log to TensorBoard": {"how-to/trackers"},
    "use it with Optuna": {"how-to/optuna"},
    "several GPUs": {"how-to/devices"},
    "minibatches from a generator": {"how-to/minibatches"},
    "a penalty per group of my table": {"how-to/groups-of-features"},
}
"""The pages of which each answers a question. An ``{index}`` entry of a page has its question in full."""

PATIENCE = 100
"""Tenths of a second in which a search must have found something."""

HITS = "[...document.querySelectorAll('#search-results ul.search > li > a')].map(a => a.href)"
LINKS = "[...document.querySelectorAll('article a')].map(a => a.href)"


def addresses(view: QWebEngineView, script: str) -> list[str]:
    """Where the links that a script names lead, as names of pages without their folder."""
    answers: list[str] = []
    loop = QEventLoop()
    view.page().runJavaScript(
        f"JSON.stringify({script})", lambda found: (answers.append(found), loop.quit())
    )
    loop.exec()
    return json.loads(answers[0] or "[]")


def shown(view: QWebEngineView, url: QUrl) -> None:
    """Returns once the page is loaded."""
    loop = QEventLoop()
    view.loadFinished.connect(loop.quit)
    view.load(url)
    loop.exec()
    view.loadFinished.disconnect(loop.quit)


def pages(links: list[str], folder: Path) -> list[str]:
    """Links into the folder as names of pages, ``how-to/flax``."""
    paths = (Path(QUrl(link).toLocalFile()) for link in links)
    inside = (path for path in paths if path.is_relative_to(folder))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in inside]


def hits(view: QWebEngineView, folder: Path, question: str) -> list[str]:
    """What the search of the site finds, best first."""
    url = QUrl.fromLocalFile(str(folder / "search.html"))
    url.setQuery(f"q={question}")
    shown(view, url)
    for _ in range(PATIENCE):
        found = pages(addresses(view, HITS), folder)
        if found:
            return found
        wait(100)
    return []


def main() -> int:
    """Asks all questions, says how each is answered, and fails if one is not."""
    folder = Path(sys.argv[1]).resolve()
    app = QApplication([sys.argv[0], "--disable-gpu"])
    view = QWebEngineView()
    shown(view, QUrl.fromLocalFile(str(folder / "index.html")))
    linked = set(pages(addresses(view, LINKS), folder))
    unanswered = 0
    for question, answers in ANSWERS.items():
        first = (hits(view, folder, question) or ["nothing"])[0]
        found = first in answers
        ways = [f"search finds {first}" if found else f"search finds {first} FIRST"]
        ways += [f"one click to {page}" for page in sorted(answers & linked)]
        unanswered += not found and len(ways) == 1
        print(f"{question}: {', '.join(ways)}")
    print(f"{len(ANSWERS)} questions, {unanswered} unanswered")
    app.quit()
    return 1 if unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
