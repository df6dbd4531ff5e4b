"""Reverse-HO over very long horizons: segments of bounded seconds, driven from Python.

One compiled program cannot be interrupted, shows no progress, and holds all that it needs on the device.
Here the horizon is cut into segments, each one compiled program; the states at their starts lie on a
shelf, in host memory or on disk: all of them, or no more than a number of slots, filled by the binomial
schedule over segments (as the k-ary tree of REPLAY, arXiv 2503.13751, memory O(log T) states).
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx

from rfho._engines.reverse import Sweep
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode
from rfho.hyper_gradients.precision import (
    Precision,
    as_rounded,
    check_precision,
    measured,
    measured_cost,
)
from rfho.hyper_gradients.segmented_run import SegmentedRun
from rfho.hyper_gradients.segments import begin, evaluate, finish, read_end
from rfho.hyper_gradients.states_on_disk import Writing, planned_states
from rfho.hyper_gradients.watch import Watch, silent
from rfho.memory import AbstractCheckpoint, Recompute, Span
from rfho.memory.binomial import repetitions
from rfho.memory.shelf import AbstractShelf, HostShelf
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree


class LongReverseHyperGradient(AbstractHyperGradient):
    """Exact hypergradient over horizons of 10^5 steps and more, in little memory.

    Args:
        segment: inner steps per compiled program; choose it so that one takes a second or so, which is
            also how long Ctrl-C may have to wait.
        slots: at most so many states on the shelf, one per segment by default.
        shelf: where they lie, `HostShelf` or `DiskShelf`.
        checkpoint: the memory policy within a segment.
        on_segment: called with (segments done, segments in all) after each compiled program; the way
            forward counts once, the way back twice.
        precision: as in `ReverseHyperGradient`; the finer evaluation runs in segments too.
        watch: hears the same, and may keep what an interrupted estimate goes on from: set by the outer loop.

    Cost:
        Time: one run more than that of ``checkpoint``, and r more where ``slots`` need r repetitions.
        Device memory that of ``checkpoint`` over one segment; shelf ``slots`` states. Exact up to
        rounding. Runs from Python: not under `jax.jit` or `jax.vmap`. Not for several objectives.

    Aux:
        ``stats["seed_norm"]`` and ``stats["adjoint_norm"]`` as in `ReverseHyperGradient`.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.LongReverseHyperGradient(segment=1000, slots=20)
    """

    segment: int = eqx.field(static=True)
    slots: int | None = eqx.field(static=True, default=None)
    shelf: AbstractShelf = eqx.field(default_factory=HostShelf)
    checkpoint: AbstractCheckpoint = eqx.field(default_factory=Recompute)
    on_segment: Callable[[int, int], None] = eqx.field(static=True, default=silent)
    precision: Precision | None = None
    watch: Watch = eqx.field(static=True, default_factory=Watch)

    def __check_init__(self) -> None:
        positive_int(self.segment, "segment", type(self).__name__)
        if self.slots is not None:
            positive_int(self.slots, "slots", type(self).__name__)
        check_precision(self)

    @property
    def driven_from_python(self) -> bool:
        """It is."""
        return True

    @property
    def mode(self) -> Mode:
        """Reverse."""
        return Mode.REVERSE

    @property
    def trains_anew(self) -> bool:
        """It is."""
        return True

    def watched(self, watch: Watch) -> "LongReverseHyperGradient":
        """The same, telling ``watch``."""
        return dataclasses.replace(self, watch=watch)

    def cost(self, parts: Parts) -> Forecast:
        """One run and the reruns of the slots, then the policy over one segment after another."""
        if self.precision is not None:
            return measured_cost(self, parts, self._finer())
        horizon, segment = parts.problem.horizon, min(self.segment, parts.problem.horizon)
        one = parts.of_reverse(self.checkpoint, Span(0, segment))
        segments = -(-horizon // segment)
        again = 0 if self.slots is None else repetitions(segments, self.slots)
        run = parts.of_training(horizon).time
        time = segments * one.time + (1 + again) * run
        held = min(self.slots or segments, segments) if self.shelf.takes_host_memory else 0
        return one._replace(time=time, host=one.host + held * parts.of_a_state)

    def written(self, problem: AbstractMoment, hyper: Hyper, folder: str | None) -> Writing:
        """The states on a `DiskShelf`, and pages of them."""
        return planned_states(problem, hyper, (self.segment, self.slots, self.shelf), folder)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Nothing is carried."""

    def estimate(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[Estimate, None]:
        """∇f(λ) of the whole run."""
        if problem.several_objectives:
            raise ValueError(
                "LongReverseHyperGradient follows one objective: use ReverseHyperGradient for several"
            )
        if self.precision is not None:
            return measured(self, problem, hyper, carry, finer=self._finer())
        run = SegmentedRun(problem, hyper, self)
        state = begin(problem, hyper)
        self.watch.begin((problem.k, problem.t0, problem.rest, hyper, state))
        handle = self.shelf.open(state)
        try:
            final = run.forward(handle, state)
            reading = read_end(problem, hyper, final)
            adjoint, hypergradient = run.backward(handle, (reading.by_state, reading.by_hyper))
        finally:
            self.shelf.close(handle)
        swept = Sweep(reading.value, hypergradient, final, reading.by_state, adjoint, None)
        return finish(problem, hyper, swept), carry

    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run, in segments too."""
        _, problem = as_rounded(self, problem)
        state = begin(problem, hyper)
        run = SegmentedRun(problem, hyper, self)
        for i in range(run.segments):
            state = run.advanced(state, i)
        params = problem.dynamics.output(state)
        return evaluate(problem, hyper, params), params

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""

    def _finer(self) -> "LongReverseHyperGradient":
        # Heard by nobody: the segments that are counted are those of the estimate.
        return LongReverseHyperGradient(self.segment, slots=self.slots, shelf=self.shelf)
