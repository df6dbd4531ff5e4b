"""Hyperparameters that were tried one after the other, and the processor time that each has taken."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jax import Array

import rfho
from rfho.runs.stopwatch import clock


class Trial(NamedTuple):
    """Hyperparameters, and what they came to.

    Attributes:
        hyper: λ.
        value: f(λ); not finite where training diverged.
        seconds: what `clock` says that it took.
    """

    hyper: Any
    value: float
    seconds: float


def tried(problem: rfho.Problem, candidates: Iterable[Any]) -> Iterator[Trial]:
    """One training run with each candidate."""
    for hyper in candidates:
        begin = clock()
        value = float(_trained(problem, hyper))
        yield Trial(hyper, value, clock() - begin)


def sound(trials: Sequence[Trial]) -> list[Trial]:
    """Those in which training did not diverge."""
    return [trial for trial in trials if math.isfinite(trial.value)]


def best(trials: Sequence[Trial]) -> Trial:
    """The sound one with the lowest value.

    Raises:
        ValueError: training diverged in all of them.
    """
    if not sound(trials):
        raise ValueError(f"training diverged in all of {len(trials)} trials: lower the rates")
    return min(sound(trials), key=lambda trial: trial.value)


def spent(trials: Sequence[Trial]) -> float:
    """Seconds of all, without those of compiling: each counts as their median.

    Example:
        >>> spent([Trial(None, 0.3, 9.0), Trial(None, 0.2, 2.0), Trial(None, 0.1, 2.0)])
        6.0
    """
    return len(trials) * statistics.median([trial.seconds for trial in trials]) if trials else 0.0


def recorded(trial: Trial) -> dict[str, object]:
    """A trial as a line of a run's history; the entries of an array are numbered."""
    flat: dict[str, object] = {
        f"{key} {place}" if np.ndim(entry) else key: value
        for key, entry in trial.hyper.items()
        for place, value in enumerate(np.ravel(entry).tolist(), start=1)
    }
    return {"value": trial.value, "seconds": trial.seconds} | flat


@eqx.filter_jit
def _trained(problem: rfho.Problem, hyper: Any) -> Array:
    return rfho.hyper_gradients.ReverseHyperGradient().conclude(problem, hyper, None)[0]
