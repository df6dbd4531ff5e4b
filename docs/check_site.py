"""Whether every link inside the built pages leads somewhere: ``python docs/check_site.py FOLDER``."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag points to, and what can be pointed to."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


def broken(folder: Path) -> list[str]:
    """A line for each link that leads nowhere; those to other sites are not followed."""
    pages = {
        path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))
    }
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or (not parts.path and not parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else None
            missing = not target.exists()
            if missing or (
                parts.fragment and anchors is not None and parts.fragment not in anchors
            ):
                found.append(f"{path.relative_to(folder)}: {link}")
    return found


def main() -> int:
    """Prints what is broken, and says so by the exit code."""
    folder = Path(sys.argv[1]).resolve()
    if not (folder / "index.html").exists():
        print(f"{folder.name} holds no index.html: build the pages first, by make docs")
        return 1
    lines = broken(folder)
    print("\n".join(lines) or f"every link inside {folder.name} leads somewhere")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
