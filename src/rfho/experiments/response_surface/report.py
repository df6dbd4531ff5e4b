"""What a walk on the response surface shows: where each path ends, and the picture of all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfho.runs.pictures import COLOURS, LINES, figure
from rfho.runs.study import Record, tabulated
from rfho.runs.table import Table

REVERSE, FORWARD, REAL_TIME, RANDOM = "Reverse-HO", "Forward-HO", "RTHO", "random search"

_COLUMNS = {
    "method": None,
    "start": 0,
    "rate η": 4,
    "penalty ρ": None,
    "f(η, ρ)": 4,
    "loss of the run itself": 4,
    "cost in training runs, measured": 0,
    "budgeted": 0,
}


class Surface(NamedTuple):
    """f over two hyperparameters, a row of losses for each penalty; NaN where it is not known."""

    rates: Float[np.ndarray, " n"]
    penalties: Float[np.ndarray, " n"]
    losses: Float[np.ndarray, "n n"]


class Path(NamedTuple):
    """Where a method went from one start.

    Attributes:
        method, start: which.
        points: (η, ρ) at first and after each outer step.
        values: what the method saw at the points but the last.
        runs, measured: plain training runs that it is taken to cost, and that it costs by the clock.
    """

    method: str
    start: int
    points: Float[np.ndarray, "n 2"]
    values: Float[np.ndarray, " _"]
    runs: int | float
    measured: int | float

    @property
    def end(self) -> Float[np.ndarray, " 2"]:
        """(η, ρ) with which it ends: of random search the best that it has seen."""
        return self.points[int(np.nanargmin(self.values)) if self.method == RANDOM else -1]


def result_table(paths: Sequence[Path], ends: Sequence[float]) -> Table:
    """The validation loss f with which each path ends, and its price."""
    records: list[Record] = []
    for path, ended in zip(paths, ends, strict=True):
        rate, penalty = map(float, path.end)
        seen = float(path.values[-1]) if path.method == REAL_TIME else None
        known = path.method, path.start + 1, rate, penalty, ended, seen, path.measured, path.runs
        records.append(dict(zip(_COLUMNS, known, strict=True)))
    note = (
        f"Forward-HO follows Reverse-HO to within {_gap(paths):.1e} in η and ρ: both compute the "
        "same hypergradient. f is that of a fresh run at constant η and ρ; real-time HO changes them "
        "while it trains, so the loss of its own run is the one to look at. Measured by CPU seconds "
        "against plain training, without compilation and outer updates; random search has the budget."
    )
    return tabulated("Where each path ends", records, _COLUMNS, note=note)


def draw(surface: Surface, paths: Sequence[Path], *, level: float) -> Figure:
    """The surface as filled contours, with the paths upon it; losses above ``level`` look alike."""
    drawn, axes = figure(width=7.0, height=4.8)
    axis: Axes = axes[0, 0]
    known = np.isfinite(surface.losses)
    lowest = float(np.min(surface.losses, where=known, initial=level))
    levels = np.geomspace(max(lowest, 1e-3) * 0.999, level * 1.001, 16)
    height = np.where(known, np.minimum(surface.losses, level), level)
    shades = colormaps["bone"](np.linspace(0.2, 1, len(levels) - 1))
    image = axis.contourf(*surface[:2], height, levels, colors=shades)
    ticks = levels[::3]
    bar = drawn.colorbar(image, ax=axis, label="validation loss f(η, ρ) after T steps", ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks])
    for number, method in enumerate(dict.fromkeys(path.method for path in paths)):
        alike = [path for path in paths if path.method == method]
        _draw_method(axis, alike, number)
    starts = np.array([path.points[0] for path in paths]).reshape(-1, 2)
    axis.plot(*starts.T, "o", color="white", markeredgecolor="black", label="start")
    axis.set(xscale="log", xlabel="learning rate η", yscale="log", ylabel="penalty ρ")
    axis.set(xlim=surface.rates[[0, -1]], ylim=surface.penalties[[0, -1]])
    axis.grid(visible=False)
    drawn.legend(loc="outside upper center", ncols=5, frameon=False)
    return drawn


def _draw_method(axis: Axes, paths: Sequence[Path], number: int) -> None:
    colour = COLOURS[(1, 4, 2, 5)[number % 4]]
    for path in paths:
        label = path.method if path is paths[0] else None
        if path.method == RANDOM:
            axis.plot(*path.points.T, ".", color=colour, markersize=2.5, alpha=0.7, label=label)
            continue
        line = LINES[number % len(LINES)]
        width = 3.2 if number == 0 else 1.6
        axis.plot(*path.points.T, line, color=colour, linewidth=width, label=label)
        axis.plot(*path.points[-1], "*", color=colour, markersize=13, markeredgecolor="black")


def _gap(paths: Sequence[Path]) -> float:
    """The largest difference between the points of Reverse-HO and Forward-HO."""
    found = [[path.points for path in paths if path.method == name] for name in (REVERSE, FORWARD)]
    gaps = [float(np.max(np.abs(back - forth))) for back, forth in zip(*found, strict=False)]
    return max(gaps, default=float("nan"))


CAPTION = (
    "The validation loss after T steps of training over rate and penalty (dark is low), and the "
    "paths of the methods from the same three starts; a star marks the end of a path. Forward-HO "
    "computes the same hypergradients as Reverse-HO and lies on it."
)
