"""A contest between ways to find hyperparameters: what each has tried, how soon, and pictures of it."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

import rfho
from rfho.runs.pictures import curves, figure, legend_above, style
from rfho.runs.stopwatch import clock


class Trial(NamedTuple):
    """λ, f(λ), which is not finite where training diverged, and what `clock` says that it took."""

    hyper: Any
    value: float
    seconds: float

    def row(self) -> dict[str, object]:
        """A line of a run's history; the entries of an array are numbered."""
        flat = {
            f"{key} {place}" if np.ndim(entry) else key: value
            for key, entry in self.hyper.items()
            for place, value in enumerate(np.ravel(entry).tolist(), start=1)
        }
        return {"value": self.value, "seconds": self.seconds, **flat}


class Contestant(NamedTuple):
    """A way to find hyperparameters, ``momentum`` and ``decay`` among them, and what it has tried."""

    name: str
    problem: rfho.Problem
    trials: list[Trial]

    @property
    def sound(self) -> list[Trial]:
        """The trials in which training did not diverge."""
        return [trial for trial in self.trials if math.isfinite(trial.value)]

    @property
    def best(self) -> Trial:
        """The sound trial of the lowest value; there must be one."""
        return min(self.sound, key=lambda trial: trial.value)

    @property
    def seconds(self) -> float:
        """Of all trials, without those of compiling: each counts as their median."""
        times = [trial.seconds for trial in self.trials]
        return len(times) * statistics.median(times) if times else 0.0


def tried(problem: rfho.Problem, candidates: Iterable[Any]) -> Iterator[Trial]:
    """One training run with each candidate."""
    for hyper in candidates:
        begin = clock()
        value = float(rfho.train(problem, hyper).value)
        yield Trial(hyper, value, clock() - begin)


def draw_progress(contestants: Sequence[Contestant]) -> Figure:
    """The lowest validation loss over processor time, compiling not counted."""
    values = {one.name: [trial.value for trial in one.trials] for one in contestants}
    drawn = curves(
        {name: np.fmin.accumulate(each) for name, each in values.items()},
        {one.name: np.linspace(0, one.seconds, len(one.trials) + 1)[1:] for one in contestants},
        x_label="processor time (s)",
        y_label="lowest validation loss",
        y_scale="log",
        held=True,
    )
    axis = drawn.axes[0]
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 1.7, 2, 2.5, 3, 4, 5, 7)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    return drawn


def draw_winners(contestants: Sequence[Contestant]) -> Figure:
    """The effective rate η / (1 - μ) of the best of each over the steps."""
    drawn, axes = figure(height=4.6)
    for number, one in enumerate(contestants):
        hyper = one.best.hyper
        momentum, decay = (float(hyper[key]) for key in ("momentum", "decay"))
        label = f"{one.name}: μ = {momentum:.2f}, ρ = {decay:.2g}"
        effective = _rates(one.problem, hyper) / (1 - momentum)
        axes[0, 0].plot(effective, label=label, **style(number))
    axes[0, 0].set(xlabel="inner step t", ylabel="effective rate η / (1 - μ)")
    legend_above(drawn, axes[0, 0], 1)
    return drawn


def _rates(problem: rfho.Problem, hyper: Any) -> np.ndarray:
    """η of every step, shape (T,)."""
    dynamics: Any = problem.dynamics
    return np.asarray(jax.vmap(lambda t: dynamics.rate(hyper, t))(jnp.arange(problem.horizon)))
