"""What an estimate that runs segment after segment writes to disks, known beforehand."""

import equinox as eqx

from rfho._programs import trees as tree
from rfho.files import Planned
from rfho.memory.binomial import repetitions
from rfho.memory.disk_shelf import DiskShelf
from rfho.memory.shelf import AbstractShelf
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper

Writing = tuple[Planned, ...]
"""What will be written."""

_AGAIN = 2
"""How many runs more are a fair price for fewer states, where the disk has no room for all."""


def planned_states(
    problem: AbstractMoment,
    hyper: Hyper,
    how: tuple[int, int | None, AbstractShelf],
    folder: str | None,
) -> Writing:
    """The states on a `DiskShelf`, and the pages of an estimate that is kept in ``folder``.

    There is a page for the state of each segment, but for none where slots are given; and two of the way back,
    one of which is written while the other is kept.

    Args:
        problem: only shapes are looked at.
        hyper: the learned leaves of λ, likewise.
        how: the steps of a segment, slots if there are any, and the shelf.
        folder: of the pages; None if nothing is kept.
    """
    segment, limit, shelf = how
    state = tree.nbytes(eqx.filter_eval_shape(lambda p, h: p.init(h), problem, hyper))
    segments = -(-problem.horizon // segment)
    slots = min(segments, limit or segments)
    cheap = (n for n in range(1, slots) if repetitions(segments, n) <= _AGAIN)
    fewer = next(cheap, slots)
    by = f"slots={fewer}" if fewer < slots else ""
    planned: list[Planned] = []
    if isinstance(shelf, DiskShelf):
        what, all_of_them = f"a shelf of {slots} states", slots * state
        planned.append(Planned(what, shelf.folder, all_of_them, all_of_them, fewer * state, by))
    if folder is not None:
        carried = state + tree.nbytes(hyper)
        pages = 0 if limit else (segments - 1) * state
        what = "pages of an estimate that goes on"
        planned.append(
            Planned(what, folder, pages + 2 * carried, carried, 2 * carried, by if pages else "")
        )
    return tuple(planned)
