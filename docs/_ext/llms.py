"""Write ``llms.txt`` and ``llms-full.txt`` beside the pages: a list of all pages, and all guides as one text.

A language model that helps somebody with the library is given these, and reads what a person would.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from recipes import recipes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

ROOMS = ("tutorials", "how-to", "explanation", "reference", "experiments")
WHOLE = ("tutorials/", "how-to/", "explanation/choosing")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have them written once the pages are."""
    app.connect("build-finished", _write)
    return {"version": "1", "parallel_read_safe": True}


def _write(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    names, files = sorted(app.env.found_docs), recipes(app)
    lines = [f"# {app.config.project}", "", f"> {_first_paragraph(app, 'index')}"]
    for room in ROOMS:
        pages = [name for name in names if name.startswith(f"{room}/")]
        lines += ["", f"## {room}", ""]
        for page in pages:
            file = f" [Its programs in one file]({page}.py)" if page in files else ""
            lines.append(f"- [{_title(app, page)}]({page}.html): {_about(app, page)}{file}")
    out = Path(app.outdir)
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = [Path(app.env.doc2path(name)) for name in names if name.startswith(WHOLE)]
    texts = (path.read_text(encoding="utf-8") for path in whole)
    (out / "llms-full.txt").write_text("\n\n".join(texts), encoding="utf-8")


def _title(app: Sphinx, page: str) -> str:
    return app.env.titles[page].astext()


def _about(app: Sphinx, page: str) -> str:
    return _first_paragraph(app, page).partition(". ")[0].removesuffix(".") + "."


def _first_paragraph(app: Sphinx, page: str) -> str:
    for paragraph in app.env.get_doctree(page).findall(nodes.paragraph):
        return paragraph.astext().replace("\n", " ")
    return ""
