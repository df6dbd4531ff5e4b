"""Several runs in one table: how each stands, and how low its objective came."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rfho.errors import DataFormatError
from rfho.runs.lines import Row
from rfho.runs.owner import RunFolderError
from rfho.runs.report import duration
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Table, make_table

_DAMAGED = "damaged"
_COLUMNS = ("run", "experiment", "status", "steps", "objective", "best", "took")


class Standing(NamedTuple):
    """How a run stands.

    Attributes:
        status: of the run, "damaged" if its folder cannot be read.
        experiment: which it is.
        steps: outer steps so far.
        last, best: the objective after the last step, and the lowest; None if the history has none.
        seconds: how long it took; None if nobody knows.
        complaint: what cannot be read, and why.
    """

    status: str
    experiment: str = ""
    steps: int = 0
    last: float | None = None
    best: float | None = None
    seconds: float | None = None
    complaint: str = ""


def found(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs among these, or right inside them.

    Raises:
        RunFolderError: there is no run in one of them.
    """
    runs = [(path, list(_runs_in(path))) for path in paths]
    for path, inside in runs:
        if not inside:
            raise RunFolderError(
                f"{path} is not the folder of a run, and there is none in it: give folders that `rfho run` or "
                "rfho.Run has made"
            )
    return [run for _, inside in runs for run in inside]


def listed(paths: Sequence[Path]) -> Table:
    """A table of runs; one that is damaged is a row of it, and a sentence below it."""
    standings = [standing(path) for path in paths]
    rows: list[Sequence[Cell]] = [
        (
            str(path),
            one.experiment,
            one.status,
            one.steps,
            one.last,
            one.best,
            None if one.seconds is None else duration(one.seconds),
        )
        for path, one in zip(paths, standings, strict=True)
    ]
    note = " ".join(one.complaint for one in standings if one.complaint)
    return make_table("Runs", [Column(name) for name in _COLUMNS], rows, note=note)


def standing(path: Path) -> Standing:
    """How the run of a folder stands."""
    folder = RunFolder(path)
    try:
        about, rows = folder.about(), folder.history()
    except DataFormatError as error:
        return Standing(_DAMAGED, complaint=f"{error}.")
    values = [value for value in map(_objective, rows) if value is not None]
    last, best = (values[-1], min(values)) if values else (None, None)
    steps = len({json.dumps(row.get("step")) for row in rows})
    return Standing(about.status, about.experiment, steps, last, best, about.seconds)


def _objective(row: Row) -> float | None:
    """The one of a step: of several, and of experiments with names of their own, none is singled out."""
    value = row.get("objective")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def _runs_in(path: Path) -> Iterator[Path]:
    if (path / "run.json").is_file():
        yield path
        return
    for inner in sorted(path.iterdir()) if path.is_dir() else ():
        if (inner / "run.json").is_file():
            yield inner
