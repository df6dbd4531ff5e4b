"""The questions that newcomers come with, asked of the built site in a real browser.

``python docs/ask.py FOLDER`` needs PyQt6-WebEngine (``make look``). Each question is put to the site's own search,
as a whole and in the few words that one types; the page that answers it must be the first hit, or one click
from the start page.
"""

import json
import sys
from pathlib import Path

from look import wait
from PyQt6.QtCore import QEventLoop, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

ANSWERS = {
    ("how do I tune dropout in Flax", "dropout flax"): {"how-to/dropout", "how-to/flax"},
    ("resume after a crash", "resume crash"): {"how-to/resume"},
    ("which checkpoint policy", "checkpoint policy"): {"how-to/fit-into-memory"},
    ("why is my hypergradient NaN", "hypergradient nan"): {"how-to/errors"},
    ("a rate per layer", "rate layer"): {"how-to/rates-per-layer"},
    ("log to TensorBoard", "tensorboard"): {"how-to/trackers"},
    ("use it with Optuna", "optuna"): {"how-to/optuna"},
    ("several GPUs", "gpu"): {"how-to/devices"},
    ("minibatches from a generator", "generator"): {"how-to/minibatches"},
    ("a penalty per group of my table", "penalty group table"): {"how-to/groups-of-features"},
}
"""A question and its words: the pages of which each is an answer."""

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
    for questions, answers in ANSWERS.items():
        first = {question: (hits(view, folder, question) or [""])[0] for question in questions}
        ways = [f'"{question}" finds {page}' for question, page in first.items() if page in answers]
        ways += [f"the start page has {page}" for page in sorted(answers & linked)]
        lost = [
            f'"{question}" finds {page or "nothing"}'
            for question, page in first.items()
            if page not in answers
        ]
        unanswered += not ways
        print(
            f"{questions[0]}: {'; '.join(ways) or 'UNANSWERED'}"
            + (f" (but {'; '.join(lost)})" if lost else "")
        )
    print(f"{len(ANSWERS)} questions, {unanswered} unanswered")
    app.quit()
    return 1 if unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
