"""What a run will write into its folder, known from shapes alone."""

from collections.abc import Sequence
from pathlib import Path

import jax

from rfho.files import Planned, size_of
from rfho.outer import Standing, Start, named, written_by_method
from rfho.runs.keeper import HISTORY, REPORTS, SNAPSHOTS, SWEEP
from rfho.runs.pace import Pace
from rfho.runs.standings import form_of, params_like
from rfho.typing import PyTree

_HEAD, _ROW, _NUMBER, _STATS = 300, 200, 28, 4
"""Bytes of a leaf in the head of a snapshot, of a row but for its hyperparameters, and of a number in it."""


def written(
    folder: Path, run: Start, standings: Sequence[Standing], pace: Pace
) -> tuple[Planned, ...]:
    """Snapshots, pages of an estimate that goes on, and the history, beyond what is there; and what a shelf takes.

    The page and its pictures, some 100 kB for each hyperparameter, are left out.

    Args:
        folder: of the run.
        run: what is tuned.
        standings: of all members at the start.
        pace: how many snapshots are kept.
    """
    each = sum(_snapshot(run, one) for one in standings)
    # One more is being written while the others are kept.
    snapshots = Planned(
        f"{pace.keep + 1} snapshots",
        str(folder),
        (pace.keep + 1) * each,
        each,
        2 * each,
        "keep=1" if pace.keep > 1 else "",
    )
    rows, reports = (run.total * sum(sizes) for sizes in zip(*map(_report, standings), strict=True))
    history = Planned(
        "the history", str(folder), rows + reports, max(rows, reports), rows + reports
    )
    sweep = str(folder / SWEEP)
    estimate = written_by_method(run, standings, sweep)
    pages = [_beyond(one, folder / SWEEP) for one in estimate if one.folder == sweep]
    return (
        _beyond(snapshots, folder / SNAPSHOTS),
        _beyond(history, folder / HISTORY, folder / REPORTS),
        *pages,
        *(one for one in estimate if one.folder != sweep),
    )


def _beyond(planned: Planned, *paths: Path) -> Planned:
    """What there is to write beyond what an earlier run has written."""
    there = size_of(*paths)
    return planned._replace(size=max(0, planned.size - there), least=max(0, planned.least - there))


def _snapshot(run: Start, standing: Standing) -> int:
    state, free = standing.state, standing.state.free
    leaves = 2 * len(jax.tree.leaves(state))
    return 2 * _nbytes(state) + _nbytes((free, params_like(run, standing))) + leaves * _HEAD


def _report(standing: Standing) -> tuple[int, int]:
    """Bytes of a row for people to read, and of a report."""
    form = form_of(standing, 0.0, ("",) * _STATS)
    numbers = sum(
        (1 if leaf.size == 1 else 3) * (len(name) + _NUMBER)
        for name, leaf in named(form.free, "hyper")
    )
    return _ROW + numbers, form.size


def _nbytes(tree: PyTree) -> int:
    arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in arrays)
