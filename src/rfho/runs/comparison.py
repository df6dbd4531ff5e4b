"""Several runs over each other: a page with a picture of every number that their histories share."""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfho.runs.lines import Row
from rfho.runs.listing import listed
from rfho.runs.pictures import curves, to_png
from rfho.runs.report import page
from rfho.runs.run_folder import open_run_folder

_NOT_DRAWN = ("step", "member", "seconds")
_MOST_PICTURES = 30


def compared(paths: Sequence[Path]) -> str:
    """The page, in HTML.

    Args:
        paths: folders of runs.

    Raises:
        RunFolderError: there is no run in one of them.
        DataFormatError: one is damaged.
    """
    histories = {str(path): open_run_folder(path).history() for path in paths}
    shared = _shared(list(histories.values()))[:_MOST_PICTURES]
    pictures = {name: _drawn(histories, name) for name in shared}
    return page("comparison.html", {"pictures": pictures, "runs": listed(paths)})


def _drawn(histories: Mapping[str, Sequence[Row]], name: str) -> str:
    series = dict(_series(histories, name))
    drawn = curves(series, x_label="outer step", y_label=name)
    return base64.b64encode(to_png(drawn)).decode("ascii")


def _series(histories: Mapping[str, Sequence[Row]], name: str) -> Iterator[tuple[str, np.ndarray]]:
    """A curve for each run and start, its first point at step 0."""
    for run, rows in histories.items():
        starts = list(dict.fromkeys(row.get("member") for row in rows))
        for start in starts:
            of_it = [_number(row.get(name)) for row in rows if row.get("member") == start]
            yield (run if len(starts) == 1 else f"{run}, start {start}"), np.array(of_it)


def _shared(histories: Sequence[Sequence[Row]]) -> list[str]:
    """The numbers that all of them have, in the order of the first."""
    first, *others = [dict.fromkeys(key for row in rows for key in row) for rows in histories]
    return [
        name
        for name in first
        if name not in _NOT_DRAWN
        and all(name in other for other in others)
        and any(math.isfinite(_number(row.get(name))) for rows in histories for row in rows)
    ]


def _number(value: object) -> float:
    """NaN for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    return float(value)
