"""Equations as MathML, made while building: they need neither a network nor a script to be seen."""

from __future__ import annotations

import html

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)
SPELT = {r"\dots": r"\ldots"}
"""Commands that docutils calls otherwise."""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Offer the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(f'<span class="math">{_mathml(node, display=False)}</span>')
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    identifier = f' id="{node["ids"][0]}"' if node["ids"] else ""
    translator.body.append(f'<div class="math"{identifier}>{_mathml(node, display=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, display: bool) -> str:
    tex = node.astext().strip()
    for here, there in SPELT.items():
        tex = tex.replace(here, there)
    aligned = display and ("&" in tex or r"\\" in tex) and r"\begin" not in tex
    try:
        return tex2mathml(
            rf"\begin{{aligned}}{tex}\end{{aligned}}" if aligned else tex, as_block=display
        )
    except MathError as error:
        LOGGER.warning("%s: %s", tex, error, location=node)
        return f"<code>{html.escape(tex)}</code>"
