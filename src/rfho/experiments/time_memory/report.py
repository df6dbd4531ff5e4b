"""What measured costs of methods show: tables and a picture of time and memory by size."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rfho.runs.pictures import COLOURS, LINES, figure
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Table, make_table

Row = Mapping[str, Any]
"""A method at a size: ``sweep`` (one of the two below), ``size``, ``method``, ``time`` and ``memory``
as measured, ``forecast time`` and ``forecast memory``; None where it is not known.
"""

Number = int | float

HYPERS, PARAMS = "hyperparameters", "parameters"
FORWARD, REVERSE = "forward", "reverse, StoreAll"
PER_DIRECTION = 1.4


def add_costs(folder: RunFolder, rows: Sequence[Row], held: Mapping[str, str]) -> list[Table]:
    """Adds the picture and all tables, and returns the tables.

    Args:
        folder: of the run.
        rows: of both sweeps.
        held: what does not vary, for each sweep.
    """
    folder.add_picture("time-memory", draw(rows, held), _CAPTION)
    tables: list[Table] = []
    for sweep in (HYPERS, PARAMS):
        for kind, unit in (("time", "× plain training"), ("memory", "kB beyond plain training")):
            title = f"{kind.capitalize()}, {unit}, by {sweep}"
            tables.append(costs(rows, sweep, kind, title=title))
            folder.add_table(f"{kind}-by-{sweep}", tables[-1])
    tables.append(crossings(rows))
    folder.add_table("crossing", tables[-1])
    return tables


def crossing(
    sizes: Sequence[int], falling: Sequence[Number | None], rising: Sequence[Number | None]
) -> float | None:
    """Where ``rising`` comes to exceed ``falling``, by straight lines on logarithmic axes."""
    known = [
        (math.log(x), math.log(b / a))
        for x, a, b in zip(sizes, falling, rising, strict=True)
        if a is not None and b is not None
    ]
    for (x, low), (y, high) in itertools.pairwise(known):
        if low <= 0 < high:
            return math.exp(x - low * (y - x) / (high - low))
    return None


def crossings(rows: Sequence[Row]) -> Table:
    """From how many hyperparameters on reverse mode is faster, and needs less memory."""
    lines: list[list[Cell]] = []
    for kind in ("time", "memory"):
        for source in (f"forecast {kind}", kind):
            sizes, back = _series(rows, HYPERS, REVERSE, source)
            _, forth = _series(rows, HYPERS, FORWARD, source)
            label = f"{kind}, {'forecast' if source != kind else 'measured'}"
            lines.append([label, crossing(sizes, back, forth)])
    _, back = _series(rows, HYPERS, REVERSE, "time")
    known = [time for time in back if time is not None]
    rule = (float(np.median(known)) - 1) / PER_DIRECTION if known else None
    lines.insert(1, [f"time, 1 + {PER_DIRECTION} m against the measured reverse", rule])
    columns = [Column("forward is cheaper than reverse, StoreAll"), Column("up to m", 1)]
    return make_table("Where forward and reverse mode cross", columns, lines)


def costs(rows: Sequence[Row], sweep: str, kind: str, *, title: str) -> Table:
    """One line per method, one column per size: measured, and in brackets forecast."""
    sizes = sorted({row["size"] for row in rows if row["sweep"] == sweep})
    lines: list[list[Cell]] = []
    for name in dict.fromkeys(row["method"] for row in rows):
        seen, measured = _series(rows, sweep, name, kind)
        _, expected = _series(rows, sweep, name, f"forecast {kind}")
        cells = dict(zip(seen, zip(measured, expected, strict=True), strict=True))
        lines.append([name, *(_shown(kind, *cells.get(size, (None, None))) for size in sizes)])
    columns = [Column("method"), *(Column(f"{size} {sweep}") for size in sizes)]
    note = "In brackets: forecast, before anything is compiled. A dash: not known or not run."
    return make_table(title, columns, lines, note=note)


def _shown(kind: str, *pair: Number | None) -> str:
    scale, digits = (1, 2) if kind == "time" else (1e-3, 0)
    measured, expected = ("–" if x is None else f"{scale * x:.{digits}f}" for x in pair)
    return f"{measured} ({expected})"


def _series(
    rows: Sequence[Row], sweep: str, method: str, key: str
) -> tuple[list[int], list[Number | None]]:
    chosen = [row for row in rows if (row["sweep"], row["method"]) == (sweep, method)]
    chosen.sort(key=lambda row: row["size"])
    return [row["size"] for row in chosen], [row[key] for row in chosen]


def draw(rows: Sequence[Row], held: Mapping[str, str]) -> Figure:
    """Time above, memory below; by hyperparameters on the left, by parameters on the right."""
    drawn, axes = figure(2, 2, width=9.0, height=7.6)
    for column, sweep in enumerate((HYPERS, PARAMS)):
        for line, kind in enumerate(("time", "memory")):
            _draw_costs(axes[line, column], rows, sweep, kind)
        axes[0, column].set_title(held[sweep])
        axes[1, column].set_xlabel(f"number of {sweep}")
    sizes = [row["size"] for row in rows if row["sweep"] == HYPERS]
    m = np.geomspace(min(sizes), max(sizes), 50)
    rule = f"1 + {PER_DIRECTION} m"
    axes[0, 0].plot(m, 1 + PER_DIRECTION * m, ":", color="grey", label=rule, zorder=1)
    axes[0, 0].axhline(4, color="grey", linestyle="--", linewidth=1, label="4", zorder=1)
    meet = 3 / PER_DIRECTION
    axes[0, 0].axvline(
        meet, color="grey", linewidth=0.8, label=f"predicted crossing, m = {meet:.1f}"
    )
    axes[0, 0].plot([], [], "o", color="grey", fillstyle="none", label="forecast by rfho")
    axes[0, 0].set_ylabel("time, × plain training")
    axes[1, 0].set_ylabel("memory beyond plain training, kB")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return drawn


def _draw_costs(axis: Axes, rows: Sequence[Row], sweep: str, kind: str) -> None:
    """Measured as lines, forecasts as open circles."""
    scale = 1 if kind == "time" else 1e-3
    for number, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        colour = COLOURS[number % len(COLOURS)]
        for key, style in ((kind, f".{LINES[number % 4]}"), (f"forecast {kind}", "o")):
            sizes, values = _series(rows, sweep, name, key)
            known = [(x, scale * y) for x, y in zip(sizes, values, strict=True) if y is not None]
            if known:
                x, y = zip(*known, strict=True)
                label = name if key == kind else None
                axis.plot(x, y, style, color=colour, fillstyle="none", label=label)
    axis.set(xscale="log", yscale="log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelrotation=45)


_CAPTION = (
    "Time of one hypergradient (of real-time: of all T / Δ of a training run) in plain training runs, "
    "and memory beyond plain training. Lines: measured; open circles: forecast by rfho before "
    "anything is compiled."
)
