"""A table as data, and the ways to show it: terminal, Markdown and JSON; `report` has HTML.

Example:
    >>> accuracy = make_table(
    ...     "Test accuracy", ["method", Column("accuracy", 2)], [("oracle", 90.456)]
    ... )
    >>> print(to_markdown(accuracy))
    **Test accuracy**
    <BLANKLINE>
    | method | accuracy |
    | :--- | ---: |
    | oracle | 90.46 |
    <BLANKLINE>
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import table as rich_table
from rich.text import Text

from rfho.files import damaged
from rfho.files import from_json as read_text

_MOST_DECIMALS = 30


class Spread(NamedTuple):
    """The mean of several runs and their standard deviation."""

    mean: float
    std: float


Cell = str | int | float | bool | Spread | None
"""What a table holds; None and numbers that are not finite are shown as a dash."""


class Column(NamedTuple):
    """The heading of a column, and how many decimals its floats show (None: four digits)."""

    name: str
    decimals: int | None = None


class _StoredSpread(NamedTuple):
    mean: float | None
    std: float | None


class _Stored(NamedTuple):
    """A table as JSON has it."""

    title: str
    columns: list[Column]
    rows: list[list[bool | int | float | str | _StoredSpread | None]]
    note: str


class Table(NamedTuple):
    """A table; build it with `make_table`, which checks its shape."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


def make_table(
    title: str, columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], *, note: str = ""
) -> Table:
    """A table whose every row has one cell per column.

    Args:
        title: stands above it.
        columns: the headings, or their names alone.
        rows: the cells.
        note: stands below it.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(
                f"row {number} of the table {title!r} has {len(row)} cells for {len(columns)} "
                f"columns: {tuple(row)}"
            )
    headings = tuple(each if isinstance(each, Column) else Column(each) for each in columns)
    return Table(title, headings, tuple(tuple(row) for row in rows), note)


def spread(values: Sequence[float] | np.ndarray) -> Cell:
    """The mean of several runs and their standard deviation (over n - 1); of one run its number.

    Args:
        values: one for each run; at least one.

    Example:
        >>> shown(spread([1.0, 2.0, 3.0]), 1), shown(spread([4.0]), 1)
        ('2.0 ± 1.0', '4.0')
    """
    if len(values) < 2:
        return float(values[0])
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)))


def shown(cell: Cell, decimals: int | None = None) -> str:
    """A cell as text.

    Example:
        >>> shown(Spread(90.06, 0.213), 2), shown(0.000123456), shown(None)
        ('90.06 ± 0.21', '0.0001235', '–')
    """
    match cell:
        case None:
            return "–"
        case bool():
            return "yes" if cell else "no"
        case Spread():
            return f"{shown(cell.mean, decimals)} ± {shown(cell.std, decimals)}"
        case float() if not math.isfinite(cell):
            return "–"
        case float():
            return f"{cell:.4g}" if decimals is None else f"{cell:.{decimals}f}"
        case int():
            return str(cell)
        case str():
            return cell


def to_rich(table: Table) -> rich_table.Table:
    """For ``rich.console.Console.print``."""
    drawn = rich_table.Table(title=Text(table.title), caption=Text(table.note) or None)
    for column, is_numeric in zip(table.columns, numeric(table), strict=True):
        drawn.add_column(Text(column.name), justify="right" if is_numeric else "left")
    for row in texts(table):
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def to_markdown(table: Table) -> str:
    """A pipe table with its title above and its note below."""
    rule = ["---:" if is_numeric else ":---" for is_numeric in numeric(table)]
    heads = [_piped(column.name) for column in table.columns]
    lines = [heads, rule, *([_piped(cell) for cell in row] for row in texts(table))]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{table.title}**\n\n{body}" + (f"\n{table.note}\n" if table.note else "")


def to_json(table: Table) -> str:
    """The table as JSON; numbers that are not finite become null."""
    content = {
        "title": table.title,
        "columns": [column._asdict() for column in table.columns],
        "rows": [[_plain(cell) for cell in row] for row in table.rows],
        "note": table.note,
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)


def from_json(text: str | bytes, path: Path) -> Table:
    """The table that `to_json` wrote, from the file ``path``.

    Raises:
        DataFormatError: the text is no JSON or no table.
    """
    stored: _Stored = read_text(text, _Stored, path=path)
    for column in stored.columns:
        if column.decimals is not None and not 0 <= column.decimals <= _MOST_DECIMALS:
            raise damaged(path, f"has a column with {column.decimals} decimals")
    rows = [[_cell(each) for each in row] for row in stored.rows]
    try:
        return make_table(stored.title, stored.columns, rows, note=stored.note)
    except ValueError as error:
        raise damaged(path, f"is no table: {error}") from error


def numeric(table: Table) -> list[bool]:
    """For each column whether it holds nothing but numbers."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    return [
        any(cell is not None for cell in cells)
        and all(cell is None or isinstance(cell, int | float | Spread) for cell in cells)
        for cells in columns
    ]


def texts(table: Table) -> list[list[str]]:
    """The cells of all rows as text."""
    return [
        [shown(cell, column.decimals) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def _piped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"mean": _plain(cell.mean), "std": _plain(cell.std)}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _cell(stored: "bool | int | float | str | _StoredSpread | None") -> Cell:
    if not isinstance(stored, _StoredSpread):
        return stored
    return Spread(*(math.nan if each is None else each for each in stored))
