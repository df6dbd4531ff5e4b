"""A table as data, and the four ways to show it: terminal, Markdown, HTML and JSON.

Example:
    >>> accuracy = make_table(
    ...     "Test accuracy", [Column("method"), Column("accuracy", 2)], [("oracle", 90.456)]
    ... )
    >>> print(to_markdown(accuracy))
    **Test accuracy**
    <BLANKLINE>
    | method | accuracy |
    | :--- | ---: |
    | oracle | 90.46 |
    <BLANKLINE>
"""

import html
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import table as rich_table
from rich.text import Text


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


class Table(NamedTuple):
    """A table; build it with `make_table`, which checks its shape."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


def make_table(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, note: str = ""
) -> Table:
    """A table whose every row has one cell per column.

    Args:
        title: stands above it.
        columns: the headings.
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
    return Table(title, tuple(columns), tuple(tuple(row) for row in rows), note)


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
    for column, numeric in zip(table.columns, _numeric(table), strict=True):
        drawn.add_column(Text(column.name), justify="right" if numeric else "left")
    for row in _texts(table):
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def to_markdown(table: Table) -> str:
    """A pipe table with its title above and its note below."""
    rule = ["---:" if numeric else ":---" for numeric in _numeric(table)]
    heads = [_piped(column.name) for column in table.columns]
    lines = [heads, rule, *([_piped(cell) for cell in row] for row in _texts(table))]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{table.title}**\n\n{body}" + (f"\n{table.note}\n" if table.note else "")


def to_html(table: Table) -> str:
    """A ``figure`` element; numbers are of the class ``number``."""
    classes = [' class="number"' if numeric else "" for numeric in _numeric(table)]
    heads = _html_row("th", [column.name for column in table.columns], classes)
    body = "".join(_html_row("td", row, classes) for row in _texts(table))
    note = f"<figcaption>{html.escape(table.note)}</figcaption>" if table.note else ""
    caption = f"<caption>{html.escape(table.title)}</caption>" if table.title else ""
    return (
        f"<figure><table>{caption}<thead>{heads}</thead>"
        f"<tbody>{body}</tbody></table>{note}</figure>"
    )


def to_json(table: Table) -> str:
    """The table as JSON; numbers that are not finite become null."""
    content = {
        "title": table.title,
        "columns": [column._asdict() for column in table.columns],
        "rows": [[_plain(cell) for cell in row] for row in table.rows],
        "note": table.note,
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)


def from_json(text: str) -> Table:
    """The table that `to_json` wrote.

    Raises:
        ValueError: the text is no JSON or no table.
    """
    try:
        content = json.loads(text)
        columns = [Column(column["name"], column["decimals"]) for column in content["columns"]]
        rows = [[_cell(plain) for plain in row] for row in content["rows"]]
        return make_table(content["title"], columns, rows, note=content["note"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a table: {error!r}") from error


def _numeric(table: Table) -> list[bool]:
    """Which columns hold nothing but numbers."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    return [
        any(cell is not None for cell in cells)
        and all(cell is None or isinstance(cell, int | float | Spread) for cell in cells)
        for cells in columns
    ]


def _texts(table: Table) -> list[list[str]]:
    return [
        [shown(cell, column.decimals) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def _piped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _html_row(element: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    parts = zip(cells, classes, strict=True)
    inner = "".join(f"<{element}{kind}>{html.escape(cell)}</{element}>" for cell, kind in parts)
    return f"<tr>{inner}</tr>"


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"mean": _plain(cell.mean), "std": _plain(cell.std)}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _cell(plain: Any) -> Cell:
    if not isinstance(plain, dict):
        return plain
    mean, std = (math.nan if plain[name] is None else plain[name] for name in Spread._fields)
    return Spread(mean, std)
