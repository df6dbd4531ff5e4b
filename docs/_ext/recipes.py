"""Write one runnable file for each guide: its programs in order, under the headings that they stand below.

The file lies beside the page, is linked from it, and is listed in ``llms.txt``. Guides whose programs make no
use of the library, or that have none, get no file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `recipe` serves where Sphinx is not installed
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

ROOM = "how-to/"
PART = re.compile(
    r"^```python\n(?P<code>.*?)^```$|^```.*?^```$|^#+ (?P<heading>[^\n]+)$",
    re.DOTALL | re.MULTILINE,
)
USES = re.compile(r"^(?:import|from)\b.*\brfho\b", re.MULTILINE)


def recipe(text: str, page: str) -> str | None:
    """The programs of a page in one file; None if it has none that uses the library.

    Args:
        text: the page's Markdown.
        page: its name, as ``how-to/flax``.
    """
    parts, used, pending = [f'"""The programs of the guide {page}, in its order."""'], False, ""
    for part in PART.finditer(text):
        if part["heading"]:
            pending = f"# {part['heading']}\n\n"
        elif part["code"]:
            parts.append(pending + part["code"].rstrip())
            pending, used = "", used or bool(USES.search(part["code"]))
    return "\n\n\n".join(parts) + "\n" if used else None


def recipes(app: Sphinx) -> dict[str, str]:
    """The files of all guides, by the page's name."""
    pages = sorted(name for name in app.env.found_docs if name.startswith(ROOM))
    texts = {page: Path(app.env.doc2path(page)).read_text(encoding="utf-8") for page in pages}
    files = {page: recipe(text, page) for page, text in texts.items()}
    return {page: file for page, file in files.items() if file is not None}


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have pages linked to their files, and the files written once the pages are."""
    app.connect("doctree-resolved", _link)
    app.connect("build-finished", _write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _link(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """After the first paragraph, or before the first program if that comes earlier."""
    from docutils import nodes

    if app.builder.format != "html" or not page.startswith(ROOM):
        return
    text = Path(app.env.doc2path(page)).read_text(encoding="utf-8")
    section = next(doctree.findall(nodes.section), None)
    if section is None or recipe(text, page) is None:
        return
    name = f"{page.removeprefix(ROOM)}.py"
    link = nodes.reference("", name, refuri=name, internal=True)
    line = nodes.paragraph("", "All programs of this page in one file: ", link, nodes.Text("."))
    before = (i for i, node in enumerate(section) if isinstance(node, nodes.literal_block))
    paragraph = (i + 1 for i, node in enumerate(section) if isinstance(node, nodes.paragraph))
    section.insert(min(next(before, len(section)), next(paragraph, len(section))), line)


def _write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for page, file in recipes(app).items():
            (Path(app.outdir) / f"{page}.py").write_text(file, encoding="utf-8")
