"""Several runs over each other: a page with a picture of every number that their outer steps share.

What is no outer step is not drawn as one. An experiment may write rows of other kinds, a racer's result for each
number of penalties, say: the page names such runs, and what their rows have instead.
"""

import base64
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfho.runs.lines import Row, as_number
from rfho.runs.listing import listed
from rfho.runs.pictures import curves, to_png
from rfho.runs.report import page
from rfho.runs.run_folder import open_run_folder

_NOT_DRAWN = ("step", "member", "seed", "retries", "seconds")
_MOST_PICTURES = 30
_MOST_NAMES = 6


class Loop(NamedTuple):
    """One outer loop in the history of a run.

    Attributes:
        name: of the run, and of the loop if there are several.
        rows: of its outer steps, in order.
    """

    name: str
    rows: Sequence[Row]

    @property
    def steps(self) -> np.ndarray:
        """Of each row."""
        return np.array([as_number(row.get("step")) for row in self.rows])


def compared(paths: Sequence[Path]) -> str:
    """The page, in HTML.

    Args:
        paths: folders of runs.

    Raises:
        RunFolderError: there is no run in one of them.
        DataFormatError: one is damaged.
    """
    loops: list[list[Loop]] = []
    left_out: list[str] = []
    for path in paths:
        rows = open_run_folder(path).history()
        found = list(_loops(str(path), rows))
        if found and all(_is_outer_loop(loop) for loop in found):
            loops.append(found)
        else:
            left_out.append(_why_not(path, rows))
    shared = _shared(loops)[:_MOST_PICTURES]
    pictures = {name: _drawn(list(itertools.chain(*loops)), name) for name in shared}
    parts = {"pictures": pictures, "runs": listed(paths), "left_out": left_out}
    return page("comparison.html", parts)


def _loops(run: str, rows: Sequence[Row]) -> Iterator[Loop]:
    """The rows by start, seed, and whatever is said in words."""
    loops: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        words = (value for value in row.values() if isinstance(value, str))
        loops.setdefault((row.get("member"), row.get("seed"), *words), []).append(row)
    for (member, seed, *words), of_it in loops.items():
        named = {"start": member, "seed": seed}
        parts = [f"{name} {value}" for name, value in named.items() if value is not None]
        yield Loop(", ".join([run, *parts, *map(str, words)] if len(loops) > 1 else [run]), of_it)


def _is_outer_loop(loop: Loop) -> bool:
    """Whether its rows are steps that follow each other."""
    steps = loop.steps
    return bool(np.isfinite(steps).all() and (np.diff(steps) > 0).all())


def _why_not(path: Path, rows: Sequence[Row]) -> str:
    if not rows:
        return f"{path} has no outer step yet, so there is nothing to draw."
    names = list(dict.fromkeys(key for row in rows for key in row))
    if "step" in names:
        return f"{path} is not drawn: its history has steps that do not follow each other."
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (
        f"{path} is not drawn: its history has no outer steps, but rows of "
        f"{', '.join(names[:_MOST_NAMES])}{more}; see its own report."
    )


def _drawn(loops: Sequence[Loop], name: str) -> str:
    values = {
        loop.name: np.array([as_number(row.get(name)) for row in loop.rows]) for loop in loops
    }
    places: Mapping[str, np.ndarray] = {loop.name: loop.steps for loop in loops}
    drawn = curves(values, places, x_label="outer step", y_label=name)
    return base64.b64encode(to_png(drawn)).decode("ascii")


def _shared(runs: Sequence[Sequence[Loop]]) -> list[str]:
    """The numbers that all of them have, in the order of the first."""
    histories = [[row for loop in loops for row in loop.rows] for loops in runs]
    if not histories:
        return []
    first, *others = [dict.fromkeys(key for row in rows for key in row) for rows in histories]
    return [
        name
        for name in first
        if name not in _NOT_DRAWN
        and all(name in other for other in others)
        and any(math.isfinite(as_number(row.get(name))) for rows in histories for row in rows)
    ]
