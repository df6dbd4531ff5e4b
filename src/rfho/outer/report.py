"""What an outer loop tells of itself: one step, and the whole run."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rfho.checks.diagnosis.symptoms import HELD_OUT
from rfho.errors import Result
from rfho.memory.shards import is_partly_here, to_host
from rfho.outer import course
from rfho.outer.lines import named, shown
from rfho.typing import Hyper, Params, PyTree


class Report(NamedTuple):
    """One outer step, on the host.

    Attributes:
        step: k = 1, 2, …
        hyper: λ_k, after the update and the projection.
        value: f at λ_{k-1}, the value that the step saw.
        hypergradient: the one that the step used.
        stats: the method's scalars, see its docstring.
        seconds: wall-clock seconds of this step; the first includes compilation.
        member: which of several starts it is; 0 if there is one.
        retries: how often its member had gone back before it; see `rfho.Retry`.
    """

    step: int
    hyper: Hyper
    value: Any
    hypergradient: Hyper
    stats: dict[str, float]
    seconds: float
    member: int = 0
    retries: int = 0

    def learned(self) -> Iterator[tuple[str, np.ndarray]]:
        """The leaves of λ that are learned, hold something, and are seen whole, by their names with dots."""
        learned = {name for name, _ in named(self.hypergradient, "hyper")}
        for name, leaf in named(self.hyper, "hyper"):
            if name in learned and np.size(leaf) and not is_partly_here(leaf):
                yield name, np.asarray(leaf)


class Best(NamedTuple):
    """The outer step with the lowest objective (the lowest sum, where there are several).

    Attributes:
        step: k of the λ_k that has it; 0 is the start.
        hyper: λ_k.
        value: f(λ_k); with ``choose``, the objective on those data.
        params: the parameters trained with it, on the device.
    """

    step: int
    hyper: Hyper
    value: PyTree
    params: Params


class Solution:
    """Where a run ended; prints in a few lines.

    ``value`` and ``params`` belong to the last λ. For batch methods they take one more training run, which
    `tune` does when a run ends as planned, and which is done when they are first asked for after Ctrl-C or a
    failure.

    Attributes:
        hyper: the last λ.
        best: the λ with the lowest objective that the run has seen, or with ``choose`` the lowest on those data;
            None before the first step.
        history: all reports, in order; each is made of its numbers when it is asked for.
        result: why the run stopped.
        error: what was raised, if anything was.
    """

    hyper: Hyper
    best: Best | None
    history: Sequence[Report]
    result: Result
    error: Exception | None

    def __init__(
        self,
        hyper: Hyper,
        *,
        best: Best | None,
        history: Sequence[Report],
        result: Result,
        conclude: Callable[[], tuple[PyTree, Params]],
        error: Exception | None = None,
    ) -> None:
        self.hyper = hyper
        self.best = best
        self.history = history
        self.result = result
        self.error = error
        self._conclude = conclude

    @functools.cached_property
    def _concluded(self) -> tuple[PyTree, Params]:
        value, params = self._conclude()
        return to_host(value), params

    @property
    def value(self) -> PyTree:
        """f at the last λ: from one more training run for batch methods, read from the run for online ones."""
        return self._concluded[0]

    @property
    def params(self) -> Params:
        """The trained parameters that belong to the last λ, on the device."""
        return self._concluded[1]

    def table(self) -> str:
        """The way of the objective and of every hyperparameter, as text: twenty outer steps at most."""
        return course.table(self.history)

    def plot(self) -> Any:
        """The same way as a `matplotlib.figure.Figure`; ``solution.plot().savefig("way.png")`` keeps it.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the run has no outer step.
        """
        return course.plot(self.history)

    def __getstate__(self) -> dict[str, Any]:
        """All but the way to train once more: a solution can be stored wherever its arrays can."""
        return {name: item for name, item in vars(self).items() if name != "_conclude"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._conclude = _not_stored

    def __repr__(self) -> str:
        """Why it ended, the objective before, best and last, λ, steps and seconds."""
        return "\n".join(
            [
                f"{self.result.name}: {self.result.value}",
                f"objective {self._values()}",
                f"hyper     {shown(self.hyper)}",
                f"best      {'-' if self.best is None else shown(self.best.hyper)}",
                f"{len(self.history)} outer steps in {_seconds(self.history):.3g} s",
            ]
        )

    @property
    def _where(self) -> str:
        held_out = self.history and HELD_OUT in self.history[-1].stats
        return "held out, " if held_out else ""

    def _values(self) -> str:
        before = shown(self.history[0].value) if self.history else "-"
        best = (
            "-"
            if self.best is None
            else f"{shown(self.best.value)} ({self._where}step {self.best.step})"
        )
        last = shown(self._concluded[0]) if "_concluded" in vars(self) else "not yet read"
        return f"{before} before, {best} best, {last} last"


def _seconds(history: Sequence[Report]) -> float:
    known = getattr(history, "seconds", None)
    return sum(report.seconds for report in history) if known is None else known


def _not_stored() -> tuple[PyTree, Params]:
    raise RuntimeError(
        "this solution was stored before its last objective was read, and a stored solution cannot train: call "
        "rfho.train(problem, solution.hyper)"
    )
