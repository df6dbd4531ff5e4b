"""Links from the source of a file back to the page that describes it.

Sphinx takes all names of a file to be described under one prefix; here some are described as ``rfho.NAME`` and
others as ``rfho.package.NAME``. A link that leads nowhere is turned to the name that the page has.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

LINK = re.compile(r'href="([^"#]+\.html)#rfho\.([^"]+)"')
ANCHOR = re.compile(r'id="(rfho\.[^"]+)"')


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have the links mended once all pages are written."""
    app.connect("build-finished", _mend)
    return {"version": "1", "parallel_read_safe": True}


def _mend(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    pages = (out / "reference" / "generated").glob("*.html")
    anchors = {page.name: ANCHOR.findall(page.read_text(encoding="utf-8")) for page in pages}

    def mended(link: re.Match[str]) -> str:
        page, name = link.groups()
        for anchor in anchors.get(Path(page).name, []):
            if anchor == f"rfho.{name}" or re.fullmatch(rf"rfho\.\w+\.{re.escape(name)}", anchor):
                return f'href="{page}#{anchor}"'
        return f'href="{page}"'

    for path in (out / "_modules").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(LINK.sub(mended, text), encoding="utf-8")
