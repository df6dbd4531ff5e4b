"""One HTML page that tells a run: results, pictures, settings, history and how it was made.

The page is made of the run's folder alone, so ``rfho report DIR`` can make it again, byte for
byte. It is self-contained: pictures are embedded, and nothing is loaded from anywhere. Whatever the folder
says is text on it, and never markup.
"""

import base64
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from rfho.errors import DataFormatError
from rfho.files import write_file
from rfho.runs.run_folder import Item, RunFolder
from rfho.runs.table import Cell, Table, make_table, numeric, texts

_STEPS_SHOWN = 60
"""Longer histories are thinned to about so many rows."""


class Result(NamedTuple):
    """One result as the page shows it: a picture, a table, arrays, or why it cannot be read."""

    item: Item
    picture: str = ""
    table: Table | None = None
    arrays: str = ""
    complaint: str = ""


def write_report(folder: RunFolder) -> Path:
    """Writes ``report.html`` into the folder of a run, and returns its path.

    Raises:
        RunFolderError: the folder holds no run.
        DataFormatError: what it holds is damaged.
        WriteError: there is no room for it.
    """
    path = folder.path / "report.html"
    write_file(path, render(folder).encode())
    return path


def render(folder: RunFolder) -> str:
    """The page as text.

    Raises:
        RunFolderError: the folder holds no run.
        DataFormatError: what it holds is damaged; results that are leave a note on the page instead.
    """
    about, history = folder.about(), folder.history()
    parts = {
        "about": about,
        "remarks": folder.remarks(),
        "results": [_result(folder, item) for item in folder.contents()],
        "settings": folder.settings_text(),
        "steps": _steps(history),
        "count": len(history),
        "versions": make_table("", ["what", "version"], list(about.versions.items())),
    }
    return page("report.html", parts)


def page(template: str, parts: Mapping[str, Any]) -> str:
    """A page of a template of this package; all that it is given is text on it, and never markup."""
    return _templates().get_template(template).render(parts)


def to_html(table: Table) -> str:
    """A table as a ``figure`` element; numbers are of the class ``number``."""
    template = '{% from "table.html" import shown with context %}{{ shown(table) }}'
    return _templates().from_string(template).render(table=table)


@functools.cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("rfho.runs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"numeric": numeric, "texts": texts, "duration": duration}
    made.filters.update(filters)
    return made


def _result(folder: RunFolder, item: Item) -> Result:
    """One result; a file that is damaged or has gone missing leaves a note, not a failure."""
    try:
        match item.kind:
            case "picture":
                png = base64.b64encode(folder.picture(item.name)).decode("ascii")
                return Result(item, picture=png)
            case "table":
                return Result(item, table=folder.table(item.name))
            case _:
                shapes = folder.shapes(item.name)
                named = [f"{name} {shape} {kind}" for name, (shape, kind) in shapes.items()]
                return Result(item, arrays=", ".join(named) or "nothing")
    except DataFormatError as error:
        return Result(item, complaint=str(error))


def _steps(rows: Sequence[Mapping[str, Cell]]) -> Table | None:
    """The outer steps as a table; none if there are none."""
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row))
    kept = _thinned(rows)
    note = "" if len(kept) == len(rows) else f"{len(kept)} of {len(rows)} steps are shown."
    cells = [[row.get(key) for key in keys] for row in kept]
    return make_table("", keys, cells, note=note)


def _thinned(rows: Sequence[Mapping[str, Cell]]) -> list[Mapping[str, Cell]]:
    """Every k-th row and always the last."""
    stride = -(-len(rows) // _STEPS_SHOWN)
    return [row for number, row in enumerate(rows, 1) if (len(rows) - number) % stride == 0]


def duration(seconds: int | float) -> str:
    """As people say it.

    Example:
        >>> duration(12.34), duration(245), duration(7380)
        ('12.3 s', '4 min 5 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
