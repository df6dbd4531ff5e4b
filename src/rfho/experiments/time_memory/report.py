"""What measured costs of methods show: tables and a picture of time and memory by size."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rfho.runs.pictures import figure, legend_above, style
from rfho.runs.study import grouped, tabulated
from rfho.runs.table import Table

Row = Mapping[str, Any]
"""A method at a size: ``sweep`` (one of the two below), ``size``, ``method``, ``time`` and ``memory``
as measured, ``forecast time`` and ``forecast memory``; None where it is not known.
"""

Number = int | float

HYPERS, PARAMS = "hyperparameters", "parameters"
FORWARD, REVERSE = "forward", "reverse, StoreAll"
PER_DIRECTION = 1.4


def tables(rows: Sequence[Row]) -> dict[str, Table]:
    """Costs of all methods by both sizes, and where the modes cross."""
    units = {"time": "× plain training", "memory": "kB beyond plain training"}
    found = {
        f"{kind}-by-{sweep}": costs(
            alike, kind, title=f"{kind.capitalize()}, {unit}, by {sweep}", sweep=sweep
        )
        for sweep, alike in grouped(rows, "sweep").items()
        for kind, unit in units.items()
    }
    return found | {"crossing": crossings(rows)}


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
    methods = grouped(grouped(rows, "sweep")[HYPERS], "method")
    back, forth = (
        sorted(methods[name], key=lambda row: row["size"]) for name in (REVERSE, FORWARD)
    )
    sizes = [row["size"] for row in back]
    label, meeting = "forward is cheaper than reverse, StoreAll", "up to m"
    found = [
        {
            label: f"{kind}, {source}",
            meeting: crossing(sizes, [row[key] for row in back], [row[key] for row in forth]),
        }
        for kind in ("time", "memory")
        for source, key in (("forecast", f"forecast {kind}"), ("measured", kind))
    ]
    known = [row["time"] for row in back if row["time"] is not None]
    rule = (float(np.median(known)) - 1) / PER_DIRECTION if known else None
    found.insert(
        1, {label: f"time, 1 + {PER_DIRECTION} m against the measured reverse", meeting: rule}
    )
    columns = {label: None, meeting: 1}
    return tabulated("Where forward and reverse mode cross", found, columns)


def costs(rows: Sequence[Row], kind: str, *, sweep: str, title: str) -> Table:
    """One line per method, one column per size: measured, and in brackets forecast."""
    scale, digits = (1, 2) if kind == "time" else (1e-3, 0)

    def shown(cost: Number | None) -> str:
        return "–" if cost is None else f"{scale * cost:.{digits}f}"

    records = [
        {"method": name}
        | {
            f"{row['size']} {sweep}": f"{shown(row[kind])} ({shown(row[f'forecast {kind}'])})"
            for row in alike
        }
        for name, alike in grouped(rows, "method").items()
    ]
    columns = [f"{size} {sweep}" for size in sorted({row["size"] for row in rows})]
    note = "In brackets: forecast, before anything is compiled. A dash: not known or not run."
    return tabulated(title, records, {"method": None, **dict.fromkeys(columns)}, note=note)


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
    legend_above(drawn, axes[0, 0], 4)
    return drawn


def _draw_costs(axis: Axes, rows: Sequence[Row], sweep: str, kind: str) -> None:
    """Measured as lines, forecasts as open circles."""
    scale = 1 if kind == "time" else 1e-3
    methods = grouped([row for row in rows if row["sweep"] == sweep], "method")
    for number, (name, alike) in enumerate(methods.items()):
        measured: dict[str, Any] = style(number) | {"marker": ".", "label": name}
        forecast: dict[str, Any] = style(number) | {"marker": "o", "linestyle": "none"}
        for key, look in ((kind, measured), (f"forecast {kind}", forecast)):
            known = sorted((row["size"], scale * row[key]) for row in alike if row[key] is not None)
            if known:
                axis.plot(*zip(*known, strict=True), fillstyle="none", **look)
    axis.set(xscale="log", yscale="log")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelrotation=45)


CAPTION = (
    "Time of one hypergradient (of real-time: of all T / Δ of a training run) in plain training runs, "
    "and memory beyond plain training. Lines: measured; open circles: forecast by rfho before "
    "anything is compiled."
)
