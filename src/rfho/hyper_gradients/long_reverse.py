"""Reverse-HO over very long horizons: segments of bounded seconds, driven from Python.

One compiled program cannot be interrupted, shows no progress, and holds all that it needs on the device.
Here the horizon is cut into segments, each one compiled program; the states at their starts lie on a
shelf, in host memory or on disk: all of them, or no more than a number of slots, filled by the binomial
schedule over segments (as the k-ary tree of REPLAY, arXiv 2503.13751, memory O(log T) states).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rfho._engines.reverse import Sweep, chain_of, roll, through_init
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode, estimated
from rfho.hyper_gradients.states_on_disk import Writing, planned_states
from rfho.hyper_gradients.watch import Watch, silent
from rfho.memory import AbstractCheckpoint, Recompute, Span, schedule
from rfho.memory.binomial import repetitions
from rfho.memory.shelf import AbstractShelf, HostShelf
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State, Step


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
    watch: Watch = eqx.field(static=True, default_factory=Watch)

    def __check_init__(self) -> None:
        positive_int(self.segment, "segment", type(self).__name__)
        if self.slots is not None:
            positive_int(self.slots, "slots", type(self).__name__)

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
        horizon, segment = parts.problem.horizon, min(self.segment, parts.problem.horizon)
        one = parts.of_reverse(self.checkpoint, Span(0, segment))
        segments = -(-horizon // segment)
        again = 0 if self.slots is None else repetitions(segments, self.slots)
        run = parts.of_training(horizon).time
        time = segments * one.time + (1 + again) * run
        kept = min(self.slots or segments, segments) * parts.of_a_state
        return one._replace(time=time, host=one.host + kept)

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
        run = _Run(problem, hyper, self)
        state = _init(problem, hyper)
        self.watch.begin((problem.k, problem.t0, problem.rest, hyper, state))
        handle = self.shelf.open(state)
        try:
            final = run.forward(handle, state)
            reading = _read(problem, hyper, final)
            adjoint, hypergradient = run.backward(handle, (reading.by_state, reading.by_hyper))
        finally:
            self.shelf.close(handle)
        swept = Sweep(reading.value, hypergradient, final, reading.by_state, adjoint, None)
        return _finish(problem, hyper, swept), carry

    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run, in segments too."""
        state = _init(problem, hyper)
        for start in range(0, problem.horizon, self.segment):
            length = min(self.segment, problem.horizon - start)
            state = _advanced(problem, hyper, state, jnp.asarray(start), Length(length))
        params = problem.dynamics.output(state)
        return _evaluate(problem, hyper, params), params

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


class Length(eqx.Module):
    """A number of steps that a program is compiled for."""

    steps: int = eqx.field(static=True)


class _Run(NamedTuple):
    """One way forward and back over the segments of a problem."""

    problem: AbstractMoment
    hyper: Hyper
    method: LongReverseHyperGradient

    @property
    def segments(self) -> int:
        return -(-self.problem.horizon // self.method.segment)

    def forward(self, handle: Any, state: State) -> State:
        """To the end; with one slot per segment the shelf is filled on the way."""
        self.method.shelf.put(handle, 0, state)
        first, state = self._found(handle, state)
        for i in range(first, self.segments):
            if self.method.slots is None and i > first:
                self.method.shelf.put(handle, i, state)
            state = self._advanced(state, i)
            self._tell(i + 1)
            if self.method.watch.is_due():
                self._keep(handle, i)
            self.method.watch.look()
        return state

    def backward(self, handle: Any, cotangents: PyTree) -> PyTree:
        """Segment by segment, last first, each from its state on the shelf or run up to."""
        starts = self._from_slots(handle) if self.method.slots else self._from_shelf(handle)
        last_first = reversed(range(self.segments))
        before = self.method.watch.found("way back", (np.zeros((), np.int64), cotangents))
        skipped, cotangents = (0, cotangents) if before is None else before
        for done, (i, state) in enumerate(zip(last_first, starts, strict=True), start=1):
            if done <= skipped:
                continue
            begin, length = self._steps(i)
            given = state, cotangents
            cotangents = _pull_back(
                self.problem, self.hyper, given, begin, length, self.method.checkpoint
            )
            jax.block_until_ready(given)
            self._tell(self.segments + 2 * done)
            if self.method.watch.is_due():
                self._keep(handle, self.segments - 1)
                so_far = np.asarray(done), cotangents
                self.method.watch.keep("way back", lambda given=so_far: given, again=True)
            self.method.watch.look()
        return cotangents

    def _tell(self, done: int) -> None:
        self.method.on_segment(done, 3 * self.segments)
        self.method.watch.segment(done, 3 * self.segments)

    def _found(self, handle: Any, state: State) -> tuple[int, State]:
        """How far an interrupted process has come on the way forward, its states on the shelf."""
        i = 0
        while self.method.slots is None and i + 1 < self.segments:
            after = self.method.watch.found(f"state {i + 1}", state)
            if after is None:
                break
            i, state = i + 1, after
            self.method.shelf.put(handle, i, state)
        return i, state

    def _keep(self, handle: Any, last: int) -> None:
        """The states on the shelf, as far as they are not kept; with few slots they are run up to again."""
        if self.method.slots is None:
            for i in range(1, last + 1):
                get = functools.partial(self.method.shelf.get, handle, i)
                self.method.watch.keep(f"state {i}", get)

    def _from_shelf(self, handle: Any) -> Iterator[State]:
        """The states at the starts of all segments, last first."""
        for i in reversed(range(self.segments)):
            yield self.method.shelf.get(handle, i)

    def _from_slots(self, handle: Any) -> Iterator[State]:
        """The same where only some are on the shelf: the others are run up to again."""
        moves = schedule(self.segments, self.method.slots or 1)
        for row in zip(*moves.rows, strict=True):
            i, source, first, last, start = map(int, row)
            state = self.method.shelf.get(handle, source)
            for move in range(first, last):
                begin, length, slot = (int(column[move]) for column in moves.table)
                state = self._run(state, begin, begin + length)
                self.method.shelf.put(handle, slot, state)
            yield self._run(state, start, i)

    def _run(self, state: State, start: int, stop: int) -> State:
        for i in range(start, stop):
            state = self._advanced(state, i)
        return state

    def _advanced(self, state: State, i: int) -> State:
        return _advanced(self.problem, self.hyper, state, *self._steps(i))

    def _steps(self, i: int) -> tuple[Step, Length]:
        start = i * self.method.segment
        length = min(self.method.segment, self.problem.horizon - start)
        return jnp.asarray(start), Length(length)


def _advanced(
    problem: AbstractMoment, hyper: Hyper, state: State, start: Step, length: Length
) -> State:
    """`_advance`, begun once the segment before is done.

    One is under way at a time: progress and Ctrl-C mean what they say, and states do not pile up.
    """
    after = _advance(problem, hyper, state, start, length)
    jax.block_until_ready(state)
    return after


@eqx.filter_jit
def _init(problem: AbstractMoment, hyper: Hyper) -> State:
    return problem.init(hyper)


@eqx.filter_jit
def _read(problem: AbstractMoment, hyper: Hyper, state: State) -> Any:
    return problem.read(state, hyper)


@eqx.filter_jit
def _evaluate(problem: AbstractMoment, hyper: Hyper, params: Params) -> PyTree:
    return problem.evaluate(params, hyper)


@eqx.filter_jit
def _advance(
    problem: AbstractMoment, hyper: Hyper, state: State, start: Step, length: Length
) -> State:
    return roll(problem.later(start), hyper, state, span=Span(0, length.steps))


@eqx.filter_jit
def _pull_back(
    problem: AbstractMoment,
    hyper: Hyper,
    state_and_cotangents: tuple[State, PyTree],
    start: Step,
    length: Length,
    checkpoint: AbstractCheckpoint,
) -> PyTree:
    state, cotangents = state_and_cotangents
    span = Span(0, length.steps)
    chain = chain_of(problem.later(start), hyper, checkpoint.keeps())
    _, tape = checkpoint.forward(chain, state, span, checkpoint.blank(chain, state, span))
    return checkpoint.backward(chain, tape, span, cotangents)[0]


@eqx.filter_jit
def _finish(problem: AbstractMoment, hyper: Hyper, swept: Sweep) -> Estimate:
    swept = through_init(problem, hyper, swept)
    return estimated(problem, hyper, swept)
