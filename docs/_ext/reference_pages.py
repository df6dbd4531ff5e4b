"""Write one reference page for each concept, from the package as it is.

A concept is a public package below `rfho`. Its page begins with a table of all names, then describes them,
what is built before what is derived from: the names on the surface `rfho`, as a reader writes them; those
that the package alone offers; abstract bases last. A name that no page describes fails the build.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.typing import ExtensionMetadata

PACKAGE = "rfho"
BY_FILE = frozenset({"adapters"})
CONTENTS = "contents.md"
PRIVATE = frozenset({"experiments"})
TITLES = {
    "outer": "Tuning",
    "problem": "Problems and data",
    "dynamics": "Dynamics",
    "hyper_gradients": "Methods",
    "domains": "Domains",
    "memory": "Memory",
    "optim": "Inner optimisers",
    "optim.schedules": "Schedules",
    "choice": "Forecasts",
    "checks": "Checks and diagnosis",
    "attribution": "Influence of examples",
    "layers": "Layers",
    "placement": "Placement on devices",
    "runs": "Runs on disk",
    "tracking": "Trackers",
    "adapters": "Other frameworks",
    "solvers": "Linear solvers",
    "datasets": "Data sets",
    "errors": "Errors and results",
    "testing": "Conformance of your own parts",
    "files": "Files",
}
"""Every concept, in the order of the sidebar; one that the library does not have is left out."""


class Name(NamedTuple):
    """Something that a page describes.

    Attributes:
        path: as a reader writes it.
        value: what it is.
    """

    path: str
    value: object

    @property
    def is_abstract(self) -> bool:
        """Whether it is there to be derived from."""
        return self.path.rpartition(".")[2].startswith("Abstract")

    @property
    def summary(self) -> str:
        """The first line of what is documented."""
        text = inspect.getdoc(self.value) or ""
        return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have the pages written before the sources are read."""
    app.connect("config-inited", lambda app, _: write_pages(Path(app.srcdir)))
    return {"version": "1", "parallel_read_safe": True}


def write_pages(source: Path) -> None:
    """Write the pages below ``source``; a page that has not changed keeps its time."""
    folder = source / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    surface = importlib.import_module(PACKAGE)
    pages, left = {}, {name: getattr(surface, name) for name in dir(surface)}
    left = {name: value for name, value in left.items() if _is_described(value)}
    for place, title in TITLES.items():
        module = _module(place)
        if module is None:
            continue
        names = list(_names(module, left))
        if names:
            pages[f"{place.replace('.', '-')}.md"] = _page(module, title, names)
            left = {name: value for name, value in left.items() if value not in _values(names)}
    if left:
        raise ExtensionError(f"no page of the reference describes {', '.join(left)}")
    missing = {info.name for info in pkgutil.iter_modules(surface.__path__) if info.ispkg}
    missing -= TITLES.keys() | PRIVATE
    if missing := {name for name in missing if not name.startswith("_")}:
        raise ExtensionError(f"no title in {__file__} for {', '.join(sorted(missing))}")
    listed = "\n".join(f"/reference/generated/{page.removesuffix('.md')}" for page in pages)
    pages[CONTENTS] = f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    _write(folder, pages)


def _write(folder: Path, pages: dict[str, str]) -> None:
    for stale in {path.name for path in folder.glob("*.md")} - pages.keys():
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _module(place: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"{PACKAGE}.{place}")
    except ModuleNotFoundError as error:
        if error.name == f"{PACKAGE}.{place}":
            return None
        raise


def _names(module: ModuleType, surface: dict[str, object]) -> Iterator[Name]:
    """What a page describes: of the surface, of the package, abstract ones last."""
    own = {name: getattr(module, name) for name in _offered(module)}
    for file in _files(module):
        own |= {f"{_last(file)}.{name}": getattr(file, name) for name in _offered(file)}
    at_the_top = [
        Name(f"{PACKAGE}.{name}", value)
        for name, value in surface.items()
        if _home(value).startswith(f"{module.__name__}.") or value in own.values()
    ]
    below = [
        Name(f"{module.__name__}.{name}", value)
        for name, value in own.items()
        if not _is_elsewhere(name, value, module)
    ]
    yield from sorted([*at_the_top, *below], key=lambda name: name.is_abstract)


def _files(module: ModuleType) -> list[ModuleType]:
    """The files of a package that offers nothing itself: one imports from them."""
    if _last(module) not in BY_FILE:
        return []
    names = [info.name for info in pkgutil.iter_modules(module.__path__)]
    return [importlib.import_module(f"{module.__name__}.{name}") for name in sorted(names)]


def _last(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _is_elsewhere(name: str, value: object, module: ModuleType) -> bool:
    """Whether another page has it: that of the surface's name, or of the package that it comes from."""
    if getattr(importlib.import_module(PACKAGE), name, None) is value:
        return True  # described as that
    homes = [place for place in TITLES if _home(value).startswith(f"{PACKAGE}.{place}.")]
    return bool(homes) and f"{PACKAGE}.{max(homes, key=len)}" != module.__name__


def _values(names: list[Name]) -> list[object]:
    return [name.value for name in names]


def _home(value: object) -> str:
    return f"{getattr(value, '__module__', '')}."


def _offered(module: ModuleType) -> list[str]:
    """List what a module offers: its ``__all__``, or else what it, or a file of it, defines."""
    defined = (
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and _home(value).startswith(f"{module.__name__}.")
    )
    names = getattr(module, "__all__", None) or defined
    return [name for name in names if _is_described(getattr(module, name))]


def _is_described(value: object) -> bool:
    """Whether it is a class or a function, and no alias of a type."""
    return inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__")


def _page(module: ModuleType, title: str, names: list[Name]) -> str:
    """Lay out the page of a concept."""
    lines = [f"# {title}", "", "```{eval-rst}", f".. automodule:: {module.__name__}", "```", ""]
    lines += ["| name | what it gives you |", "|---|---|"]
    lines += [f"| {_link(name)} | {_as_markdown(name.summary)} |" for name in names]
    lines += ["", "```{eval-rst}"]
    for name in names:
        members = ["   :members:"] if inspect.isclass(name.value) else []
        lines += [f".. {_directive(name.value)}:: {name.path}", *members, ""]
    return "\n".join([*lines, "```", ""])


def _link(name: Name) -> str:
    """The name without its package; files that one imports from are part of it."""
    parts = name.path.split(".")
    shown = ".".join(parts[2:] if BY_FILE & set(parts) else parts[-1:])
    return f"{{py:obj}}`{shown} <{name.path}>`"


def _as_markdown(text: str) -> str:
    """A line of reStructuredText, whose double backquotes are single ones here."""
    return text.replace("``", "`")


def _directive(value: object) -> str:
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if callable(value) else "autodata"
