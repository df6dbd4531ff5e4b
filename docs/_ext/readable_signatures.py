"""Signatures as a reader would write them: `Callable`, not `~collections.abc.Callable`.

jaxtyping writes out where a type comes from (`Float[jaxlib._jax.Array, '']`), which Sphinx cannot
shorten. The fields of a named tuple are described in its docstring, so the automatic 'Alias for
field number 0' is left out.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

ORIGIN = re.compile(r"~?\b(?:\w+\.)+(?=[A-Z])|~(?=\w)")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have every signature shortened before it is laid out."""
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-skip-member", _leave_out_aliases)
    return {"version": "1", "parallel_read_safe": True}


def _shorten(
    app: Sphinx,
    what: str,
    name: str,
    subject: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    return (signature and ORIGIN.sub("", signature), returns and ORIGIN.sub("", returns))


def _leave_out_aliases(
    app: Sphinx, what: str, name: str, subject: object, skip: bool, options: object
) -> bool | None:
    if re.fullmatch(r"set_\w+_request", name):
        return True  # scikit-learn makes it, with links into its own documentation
    documented = getattr(subject, "__doc__", None) or ""
    return True if documented.startswith("Alias for field number") else None
