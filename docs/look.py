"""Every built page in a real browser, at the width of a phone, a tablet and a screen.

``python docs/look.py FOLDER [PICTURES]`` needs PyQt6-WebEngine (``make look``). A page fails if anything on
it reaches beyond the window and cannot be scrolled by itself, or if it asks another site for anything.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")

from PyQt6.QtCore import QEventLoop, QTimer, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

WIDTHS = (390, 800, 1300)
HEIGHT = 1200
LOOK = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = e => e && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)
                             || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll('body *')].filter(
    e => e.getBoundingClientRect().width && e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  return JSON.stringify({
    wide: wide.slice(0, 3).map(e => e.tagName + '.' + e.className),
    page: document.documentElement.scrollWidth - width,
    asked: performance.getEntriesByType('resource').map(r => r.name).filter(n => /^https?:/.test(n)),
  });
})()"""


def wait(milliseconds: int) -> None:
    """Lets the browser work."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def shown(view: QWebEngineView, path: Path) -> None:
    """Returns once the page is loaded."""
    loop = QEventLoop()
    view.loadFinished.connect(loop.quit)
    view.load(QUrl.fromLocalFile(str(path)))
    loop.exec()
    view.loadFinished.disconnect(loop.quit)
    wait(200)


def looked_at(view: QWebEngineView) -> dict[str, object]:
    """What is wrong with the page as it is shown."""
    answers: list[str] = []
    loop = QEventLoop()
    view.page().runJavaScript(LOOK, lambda answer: (answers.append(answer), loop.quit()))
    loop.exec()
    return {name: value for name, value in json.loads(answers[0]).items() if value}


def main() -> int:
    """Looks at all pages, and names those on which something is wrong."""
    folder = Path(sys.argv[1]).resolve()
    pictures = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    app = QApplication([sys.argv[0], "--disable-gpu"])
    view, wrong, count = QWebEngineView(), 0, 0
    view.show()
    for path in sorted(folder.rglob("*.html")):
        for width in WIDTHS:
            view.resize(width, HEIGHT)
            shown(view, path)
            found = looked_at(view)
            count += 1
            if found:
                wrong += 1
                print(f"{path.relative_to(folder)} at {width} pixels: {found}")
            if pictures is not None:
                name = "-".join(path.relative_to(folder).with_suffix("").parts)
                pictures.mkdir(parents=True, exist_ok=True)
                view.grab().save(str(pictures / f"{name}-{width}.png"))
    print(f"{count} views of pages in Chromium, {wrong} with something wrong")
    app.quit()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
