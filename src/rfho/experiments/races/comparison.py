"""Racers in pairs, seed by seed: from which m on a hypergradient wins, and by how much.

A loss is compared with that of an opponent in per cent of the opponent's, on the same seed. Of five such pairs the
median and the range are shown: the range holds the true median with a probability of 1 - 2 / 2⁵ = 94 %, whatever
the distribution is.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfho.experiments.races.models import OWN
from rfho.runs.pictures import figure, legend_above, style
from rfho.runs.study import Record, grouped
from rfho.runs.table import Column, Table, make_table

OURS = "rfho"
_PANELS = ("objective", "test loss")
_MARKERS = "osD^vPX*"


def marked(number: int) -> dict[str, Any]:
    """Colour, line and marker of the ``number``-th racer."""
    return style(number) | {"marker": _MARKERS[number % len(_MARKERS)]}


class Gain(NamedTuple):
    """By how much a loss is lower than an opponent's, in per cent of theirs; of each seed."""

    table: str
    penalties: int
    ours: str
    theirs: str
    what: str
    percent: np.ndarray

    @property
    def place(self) -> tuple[int, str]:
        """What is on the axis: m, and the table."""
        return self.penalties, self.table


def gains(records: Sequence[Record]) -> Iterator[Gain]:
    """Of rfho over all others, and in test loss of rfho's estimator over the other tools."""
    for (table, penalties), cell in _cells(records).items():
        by_racer = grouped(cell, "racer")
        for ours in by_racer:
            if ours != OURS and ours not in OWN:
                continue
            for theirs in by_racer:
                races = "objective" in by_racer[theirs][0]
                if theirs == ours or (ours != OURS and races):
                    continue
                for what in _PANELS:
                    percent = _percent(by_racer[ours], by_racer[theirs], what)
                    if len(percent):
                        yield Gain(table, penalties, ours, theirs, what, percent)


def _percent(ours: Sequence[Record], theirs: Sequence[Record], what: str) -> np.ndarray:
    pairs = [
        (one[what], other[what])
        for one in ours
        for other in theirs
        if one["seed"] == other["seed"] and what in one and what in other
    ]
    return np.array([100 * (1 - one / other) for one, other in pairs])


def _cells(records: Sequence[Record]) -> dict[tuple[str, int], list[Record]]:
    cells: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        cells.setdefault((record["table"], record["penalties"]), []).append(record)
    return dict(sorted(cells.items(), key=lambda cell: (cell[0][1], cell[0][0])))


def compared(records: Sequence[Record]) -> Table:
    """A row for each pair at each m: median, range, and on how many seeds the first is lower."""
    columns = ["m", "table", "first", "second", "loss", "lower by %", "from", "to", "ahead"]
    rows = [
        [
            gain.penalties,
            gain.table,
            gain.ours,
            gain.theirs,
            gain.what,
            float(np.median(gain.percent)),
            float(gain.percent.min()),
            float(gain.percent.max()),
            f"{int((gain.percent > 0).sum())} of {len(gain.percent)}",
        ]
        for gain in gains(records)
    ]
    note = "Per cent of the second's loss on the same seed: median and range over seeds."
    return make_table("Pairs", [Column(name, 1) for name in columns], rows, note=note)


def advantages(records: Sequence[Record]) -> Figure:
    """The gains over each search and over one penalty, in the objective and in test loss."""
    found = list(gains(records))
    racing = {gain.theirs for gain in found if gain.what == "objective"}
    found = [gain for gain in found if _drawn(gain, racing)]
    places = sorted({gain.place for gain in found})
    pairs = list(dict.fromkeys((gain.ours, gain.theirs) for gain in found))
    picture, axes = figure(2, 1, width=9.6, height=8.4)
    for axis, what in zip(axes[:, 0], _PANELS, strict=True):
        axis.axhline(0, color="black", linewidth=1)
        for number, pair in enumerate(pairs):
            own = [g for g in found if (g.ours, g.theirs) == pair and g.what == what]
            _draw(axis, own, places, style=(number, len(pairs)))
        axis.set_xticks(range(len(places)), [f"{m}\n{table}" for m, table in places])
        axis.set_ylabel(f"{what}: lower by, % of theirs")
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.margins(y=0.1)
        axis.set_yscale("symlog", linthresh=10)
        axis.set_yticks([-100, -30, -10, -5, 0, 5, 10, 30, 100], None)
        axis.yaxis.set_major_formatter("{x:g}")
    axes[1, 0].set_xlabel("penalties m, and the table")
    legend_above(picture, axes[1, 0], 2)
    return picture


def _drawn(gain: Gain, racing: set[str]) -> bool:
    """The descent beside those that race; the estimator beside the tool that chooses one penalty by folds."""
    return gain.theirs in racing if gain.ours == OURS else gain.theirs.endswith("CV")


def _draw(
    axis: Axes, own: Sequence[Gain], places: Sequence[tuple[int, str]], *, style: tuple[int, int]
) -> None:
    number, count = style
    if not own:
        return
    x = [places.index(gain.place) + 0.7 * ((number + 0.5) / count - 0.5) for gain in own]
    middle = np.array([np.median(gain.percent) for gain in own])
    low = middle - [gain.percent.min() for gain in own]
    high = [gain.percent.max() for gain in own] - middle
    look: dict[str, Any] = marked(number) | {"linestyle": "none"}
    axis.errorbar(
        x,
        middle,
        yerr=[low, high],
        label=f"{own[0].ours} over {own[0].theirs}",
        markersize=5,
        capsize=2,
        linewidth=1,
        **look,
    )


def over_time(records: Sequence[Record]) -> Figure:
    """Objective and test loss over CPU seconds, a row of panels for each table and m."""
    cells = _cells([record for record in records if "moments" in record])
    picture, axes = figure(len(cells), 2, width=9.6, height=2.6 * len(cells) + 0.6)
    for row, ((table, penalties), cell) in zip(axes, cells.items(), strict=True):
        for axis, what in zip(row, _PANELS, strict=True):
            for number, (racer, own) in enumerate(grouped(cell, "racer").items()):
                middle = np.median([record[f"{what} then"] for record in own], axis=0)
                axis.plot(own[0]["moments"], middle, markersize=4, label=racer, **marked(number))
            axis.set(xscale="log", title=f"{table}, m = {penalties}", ylabel=what)
    for axis in axes[-1]:
        axis.set_xlabel("CPU seconds, compilation counted")
    legend_above(picture, axes[0, 0], 3)
    return picture
