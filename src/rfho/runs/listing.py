"""Several runs in one table: how each stands, and how low its objective came."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rfho.errors import DataFormatError
from rfho.runs.lines import as_number
from rfho.runs.owner import RunFolderError
from rfho.runs.report import duration
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import Record, tabulated
from rfho.runs.table import Table

_COLUMNS = ("run", "experiment", "status", "steps", "objective", "best", "took")


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
    rows: list[Record] = []
    complaints: list[str] = []
    for path in paths:
        try:
            rows.append({"run": str(path), **_standing(RunFolder(path))})
        except DataFormatError as error:
            rows.append({"run": str(path), "status": "damaged"})
            complaints.append(f"{error}.")
    return tabulated("Runs", rows, dict.fromkeys(_COLUMNS), note=" ".join(complaints))


def _standing(folder: RunFolder) -> Record:
    """How a run stands; of several objectives, and of experiments with names of their own, none is singled out."""
    about, rows = folder.about(), folder.history()
    values = list(filter(math.isfinite, (as_number(row.get("objective")) for row in rows)))
    return {
        "experiment": about.experiment,
        "status": about.status,
        "steps": len({row["step"] for row in rows if "step" in row}),
        "objective": values[-1] if values else None,
        "best": min(values, default=None),
        "took": None if about.seconds is None else duration(about.seconds),
    }


def _runs_in(path: Path) -> Iterator[Path]:
    if (path / "run.json").is_file():
        yield path
        return
    for inner in sorted(path.iterdir()) if path.is_dir() else ():
        if (inner / "run.json").is_file():
            yield inner
