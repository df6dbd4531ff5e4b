"""Pictures of a contest between ways to find a schedule: what was found, and how soon."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

import rfho
from rfho.experiments.shared_schedules.trials import Trial, best, spent
from rfho.runs.pictures import COLOURS, LINES, figure


class Contestant(NamedTuple):
    """A way to find hyperparameters, and what it has tried.

    Attributes:
        name: of the way.
        problem: whose dynamics are `rfho.HeavyBall`; its hyperparameters have a ``momentum`` and a
            ``decay``.
        trials: one after the other, at least one of them sound where they are drawn.
    """

    name: str
    problem: rfho.Problem
    trials: list[Trial]


def draw_progress(contestants: Sequence[Contestant]) -> Figure:
    """The lowest validation loss over processor time, compiling not counted."""
    drawn, axes = figure()
    for number, (name, _, trials) in enumerate(contestants):
        seconds = np.arange(1, len(trials) + 1) * spent(trials) / len(trials)
        lowest = np.fmin.accumulate(np.array([trial.value for trial in trials]))
        style = {"linestyle": LINES[number], "color": COLOURS[number], "where": "post"}
        axes[0, 0].step(seconds, lowest, label=name, **style)
    axes[0, 0].set(xlabel="processor time (s)", ylabel="lowest validation loss", yscale="log")
    axes[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 1.7, 2, 2.5, 3, 4, 5, 7)))
    axes[0, 0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0, 0].yaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].legend(frameon=False)
    return drawn


def draw_winners(contestants: Sequence[Contestant]) -> Figure:
    """The effective rate η / (1 - μ) of the best of each over the steps."""
    drawn, axes = figure(height=4.6)
    for number, (name, problem, trials) in enumerate(contestants):
        hyper = best(trials).hyper
        momentum, decay = (float(hyper[key]) for key in ("momentum", "decay"))
        label = f"{name}: μ = {momentum:.2f}, ρ = {decay:.2g}"
        effective = rates(problem, hyper) / (1 - momentum)
        axes[0, 0].plot(effective, LINES[number], color=COLOURS[number], label=label)
    axes[0, 0].set(xlabel="inner step t", ylabel="effective rate η / (1 - μ)")
    drawn.legend(loc="outside upper center", frameon=False)
    return drawn


def rates(problem: rfho.Problem, hyper: Any) -> np.ndarray:
    """η of every step, shape (T,)."""
    dynamics: Any = problem.dynamics
    return np.asarray(jax.vmap(lambda t: dynamics.rate(hyper, t))(jnp.arange(problem.horizon)))
