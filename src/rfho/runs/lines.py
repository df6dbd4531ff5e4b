"""Files of one JSON value per line, which grow line by line and may be cut off within the last one."""

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from rfho.files import from_json, read_bytes

Row = dict[str, bool | int | float | str | None]
"""One outer step, or one line of another kind, of a history."""


class Lines(NamedTuple):
    """What a file of lines holds.

    Attributes:
        values: one for each whole line.
        torn: whether a line without its end came after them, as a killed process may leave it.
    """

    values: list[Any]
    torn: bool


def read_lines(path: Path, kind: Any) -> Lines:
    """The values of a file of lines; none if there is no file.

    Raises:
        DataFormatError: a line is damaged, or holds a value of another kind; the message names it.
    """
    if not path.exists():
        return Lines([], torn=False)
    *lines, last = read_bytes(path).split(b"\n")
    values = [
        from_json(line, kind, path=path, place=f"line {number}")
        for number, line in enumerate(lines, start=1)
    ]
    return Lines(values, torn=bool(last))


def standing_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of outer steps that stand: without those of steps that a member took back later.

    Example:
        >>> steps = [{"step": 1}, {"step": 2}, {"step": 2, "retries": 1}, {"step": 3, "retries": 1}]
        >>> standing_rows(steps)
        [{'step': 1}, {'step': 2, 'retries': 1}, {'step': 3, 'retries': 1}]
    """
    first: dict[object, float] = {}  # of each member the earliest step that was taken again later
    kept: list[Row] = []
    retried: dict[object, float] = {}
    for row in reversed(rows):
        member, step, retries = row.get("member"), row.get("step"), row.get("retries", 0)
        if not _is_number(step) or not _is_number(retries):
            kept.append(row)
            continue
        if retries < retried.get(member, 0) and step >= first.get(member, math.inf):
            continue
        retried[member] = max(retries, retried.get(member, 0))
        first[member] = min(step, first.get(member, math.inf)) if retries else math.inf
        kept.append(row)
    return kept[::-1]


def as_line(row: Mapping[str, object]) -> str:
    """A row as one line of JSON: numbers (null if not finite), text and bools by name.

    Raises:
        TypeError: a value is an array, or nothing of that kind.

    Example:
        >>> as_line({"step": 1, "value": math.nan})
        '{"step": 1, "value": null}'
    """
    return json.dumps({key: _plain(key, value) for key, value in row.items()}, allow_nan=False)


def as_number(value: object) -> float:
    """What a float can hold of a row's value: NaN of what is no number, or too large a one."""
    try:
        return float(value) if _is_number(value) else math.nan
    except OverflowError:
        return math.nan


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(key: str, value: object) -> object:
    """A number, text or None as JSON holds it; arrays of one element count as numbers."""
    if value is None or isinstance(value, bool | str):
        return value
    if not isinstance(value, numbers.Real):
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "biuf":
            raise TypeError(
                f"the history value {key!r} has the shape {array.shape} and the type "
                f"{array.dtype}: record a number, and save arrays with add_arrays"
            )
        value = array.item()
    if isinstance(value, numbers.Integral):
        return value if isinstance(value, bool) else int(value)
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None
