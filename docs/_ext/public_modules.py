"""Write one reference page for each public module, from the package as it is.

Public are the surface `rfho`, the packages below it whose names do not begin with an underscore, and the
modules in `MODULES`. What is on the surface is described once, on the surface's page; another module's page
has what is offered there alone. The pages go to `reference/generated/`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

PACKAGE = "rfho"
MODULES = ("optim.schedules",)
PRIVATE = frozenset({"experiments"})


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have the pages written before the sources are read."""
    app.connect("config-inited", lambda app, _: write_pages(Path(app.srcdir)))
    return {"version": "1", "parallel_read_safe": True}


def write_pages(source: Path) -> None:
    """Write the pages below ``source``; a page that has not changed keeps its time."""
    folder = source / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    surface = importlib.import_module(PACKAGE)
    pages = {f"{PACKAGE}.md": _page(surface, _offered(surface))}
    described = {id(getattr(surface, name)) for name in _offered(surface)}
    for module in _public_modules(surface):
        names = [name for name in _offered(module) if id(getattr(module, name)) not in described]
        if names:
            pages[f"{module.__name__}.md"] = _page(module, names)
    for stale in {path.name for path in folder.glob("*.md")} - pages.keys():
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _public_modules(surface: ModuleType) -> Iterator[ModuleType]:
    """Walk the packages on the first level, and what is named beside them."""
    for info in pkgutil.iter_modules(surface.__path__):
        if info.ispkg and info.name not in PRIVATE and not info.name.startswith("_"):
            yield importlib.import_module(f"{PACKAGE}.{info.name}")
    for name in MODULES:
        yield importlib.import_module(f"{PACKAGE}.{name}")


def _offered(module: ModuleType) -> list[str]:
    """List what a module offers: its ``__all__``, or else what it, or a file of it, defines."""
    defined = (
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and f"{getattr(value, '__module__', '')}.".startswith(f"{module.__name__}.")
    )
    names = getattr(module, "__all__", None) or defined
    return [name for name in names if not isinstance(getattr(module, name), ModuleType)]


def _page(module: ModuleType, names: list[str]) -> str:
    """Lay out the page of a module."""
    lines = [f"# `{module.__name__}`", "", "```{eval-rst}", f".. automodule:: {module.__name__}"]
    if names:
        lines.append(f"   :members: {', '.join(names)}")
    return "\n".join([*lines, "```", ""])
