"""How much of the trajectory is kept for the way back: memory against time.

A policy runs the trajectory forward and leaves a *tape*; later it walks the tape backwards and
hands every step to the caller's ``pull_back``. All policies visit the same states in the same
order, so the hypergradient does not depend on the policy; only the number of stored states and of
repeated steps does.

    StoreAll            T states           1 step each
    Recompute           2 √T states        2 steps each
    Binomial(slots)     ``slots`` states   about r steps each, with C(slots + r, r) >= T

`Binomial` is the schedule of Griewank and Walther's revolve (ACM TOMS 26(1), 2000), provably
optimal.
"""

import abc
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from rfho.dynamics import Keep
from rfho.typing import PyTree, State, Step


class Chain(NamedTuple):
    """The steps of one trajectory, with hyperparameters and data already in place.

    Attributes:
        step: ``(state, t) -> state``.
        remember: ``(state, t) -> (state, memory)``.
        pull_back: ``(cotangents, state, memory, t) -> cotangents``.
        invert: ``(state, t) -> (state, memory)``, from the state after step t to the one before it;
            None where a step cannot be undone.
    """

    step: Callable[[State, Step], State]
    remember: Callable[[State, Step], tuple[State, PyTree]]
    pull_back: Callable[[PyTree, State, PyTree, Step], PyTree]
    invert: Callable[[State, Step], tuple[State, PyTree]] | None = None


class Span(NamedTuple):
    """The steps t = start, …, stop - 1."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of steps."""
        return self.stop - self.start


class AbstractCheckpoint(eqx.Module):
    """A memory policy."""

    @abc.abstractmethod
    def keep(self) -> Keep:
        """What of each step the policy asks the dynamics to keep."""

    @abc.abstractmethod
    def forward(self, chain: Chain, state: State, span: Span) -> tuple[State, PyTree]:
        """The state after the span, and the tape."""

    @abc.abstractmethod
    def backward(self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree) -> PyTree:
        """``cotangents`` pulled back through all steps of the span, last first."""


def advance(chain: Chain, state: State, span: Span) -> State:
    """The state after the steps of the span, none of them kept."""
    final, _ = jax.lax.scan(
        lambda s, t: (chain.step(s, t), None), state, jnp.arange(span.start, span.stop)
    )
    return final


class StoreAll(AbstractCheckpoint):
    """Every state is kept: the fastest way back, memory O(T) states.

    Args:
        keeping: what is kept of each step beside the state, see `rfho.Keep`.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(
        ...     checkpoint=rfho.StoreAll(rfho.Keep.STATES)
        ... )
    """

    keeping: Keep = eqx.field(static=True, default=Keep.GRADIENTS)

    def keep(self) -> Keep:
        """As configured."""
        return self.keeping

    def forward(self, chain: Chain, state: State, span: Span) -> tuple[State, PyTree]:
        """One scan that stacks the states before each step and the memories of each."""
        return _record(chain, state, jnp.arange(span.start, span.stop))

    def backward(self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree) -> PyTree:
        """One scan in reverse."""
        return _replay(chain, tape, jnp.arange(span.start, span.stop), cotangents)


class Recompute(AbstractCheckpoint):
    """The state at the start of every segment is kept; a segment is computed again when its turn comes.

    Args:
        segment: steps per segment; √T by default, which needs the least memory: about 2 √T states.
        keeping: what is kept of each step within the segment on the way back.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(
        ...     checkpoint=rfho.Recompute(segment=100)
        ... )
    """

    segment: int | None = eqx.field(static=True, default=None)
    keeping: Keep = eqx.field(static=True, default=Keep.GRADIENTS)

    def __check_init__(self) -> None:
        if self.segment is not None and (not isinstance(self.segment, int) or self.segment < 1):
            raise ValueError(
                f"Recompute got segment={self.segment!r}, but it must be an int of 1 or more"
            )

    def keep(self) -> Keep:
        """As configured."""
        return self.keeping

    def forward(self, chain: Chain, state: State, span: Span) -> tuple[State, PyTree]:
        """Whole segments first, then the steps that are left over."""
        whole, length = self._segments(span)

        def run(state: State, start: Array) -> tuple[State, State]:
            end, _ = jax.lax.scan(
                lambda s, i: (chain.step(s, start + i), None), state, jnp.arange(length)
            )
            return end, state

        starts = span.start + length * jnp.arange(whole)
        state, states = jax.lax.scan(run, state, starts)
        rest = Span(span.start + whole * length, span.stop)
        return advance(chain, state, rest), (states, state)

    def backward(self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree) -> PyTree:
        """Each segment, last first, run again and replayed."""
        whole, length = self._segments(span)
        states, last = tape

        def segment(
            cotangents: PyTree, start_and_state: tuple[Array, State]
        ) -> tuple[PyTree, None]:
            start, state = start_and_state
            steps = start + jnp.arange(length)
            _, segment_tape = _record(chain, state, steps)
            return _replay(chain, segment_tape, steps, cotangents), None

        left = jnp.arange(span.start + whole * length, span.stop)
        _, left_tape = _record(chain, last, left)
        cotangents = _replay(chain, left_tape, left, cotangents)
        starts = span.start + length * jnp.arange(whole)
        cotangents, _ = jax.lax.scan(segment, cotangents, (starts, states), reverse=True)
        return cotangents

    def _segments(self, span: Span) -> tuple[int, int]:
        length = self.segment or max(1, math.isqrt(span.length))
        return span.length // length, length


class Binomial(AbstractCheckpoint):
    """At most ``slots`` states at any time, with the fewest repeated steps that this allows.

    With r repetitions C(slots + r, r) steps are covered: 10 slots and 4 repetitions reach T = 1001.

    Args:
        slots: states that may be held, 1 or more.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(checkpoint=rfho.Binomial(10))
    """

    slots: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if isinstance(self.slots, bool) or not isinstance(self.slots, int) or self.slots < 1:
            raise ValueError(
                f"Binomial got slots={self.slots!r}, but it must be an int of 1 or more"
            )

    def keep(self) -> Keep:
        """Nothing: steps are pulled back one at a time, from their state."""
        return Keep.STATES

    def forward(self, chain: Chain, state: State, span: Span) -> tuple[State, PyTree]:
        """To the end without a stop; the tape is the initial state alone."""
        return advance(chain, state, span), state

    def backward(self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree) -> PyTree:
        """The schedule as data: one scan over the steps, each with its moves in the table."""
        moves = schedule(span.length, self.slots)
        slots = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.slots, *leaf.shape)), tape)
        table = jax.tree.map(jnp.asarray, moves.table)

        def run(state: State, start: Array, count: Array) -> State:
            return jax.lax.fori_loop(
                0, count, lambda i, s: chain.step(s, span.start + start + i), state
            )

        def store(i: Array, at: tuple[PyTree, State]) -> tuple[PyTree, State]:
            slots, state = at
            state = run(state, table.start[i], table.count[i])
            put = lambda slot, leaf: jax.lax.dynamic_update_index_in_dim(  # noqa: E731
                slot, leaf, table.slot[i], 0
            )
            return jax.tree.map(put, slots, state), state

        def pull(carry: tuple[PyTree, PyTree], row: "_Rows") -> tuple[tuple[PyTree, PyTree], None]:
            cotangents, slots = carry
            state = jax.tree.map(lambda slot: slot[row.source], slots)
            slots, state = jax.lax.fori_loop(row.first, row.last, store, (slots, state))
            state = run(state, row.start, row.t - row.start)
            t = span.start + row.t
            _, memory = chain.remember(state, t)
            return (chain.pull_back(cotangents, state, memory, t), slots), None

        (cotangents, _), _ = jax.lax.scan(
            pull, (cotangents, slots), jax.tree.map(jnp.asarray, moves.rows)
        )
        return cotangents


class _Rows(NamedTuple):
    """One row per step to pull back, last step first."""

    t: Int[np.ndarray, " steps"]
    source: Int[np.ndarray, " steps"]  # the slot to start from
    first: Int[np.ndarray, " steps"]  # moves first..last-1 of the table, each of which fills a slot
    last: Int[np.ndarray, " steps"]
    start: Int[np.ndarray, " steps"]  # where the state is after the moves


class _Table(NamedTuple):
    """Moves: from step ``start`` run ``count`` steps and put the state into ``slot``."""

    start: Int[np.ndarray, " moves"]
    count: Int[np.ndarray, " moves"]
    slot: Int[np.ndarray, " moves"]


class Schedule(NamedTuple):
    """The moves of binomial checkpointing over steps 0..T-1."""

    rows: _Rows
    table: _Table


def schedule(steps: int, slots: int) -> Schedule:
    """The optimal schedule for ``steps`` steps with ``slots`` states, the initial one included.

    Slot 0 holds the initial state throughout.
    """
    rows: list[tuple[int, int, int, int, int]] = []
    moves: list[tuple[int, int, int]] = []
    held = [0]  # the step at which each filled slot stands, increasing
    for t in reversed(range(steps)):
        while held[-1] > t:
            held.pop()
        source, first, at = len(held) - 1, len(moves), held[-1]
        while at < t and len(held) < slots:
            count = _first_run(t + 1 - at, slots - len(held) + 1)
            moves.append((at, count, len(held)))
            at += count
            held.append(at)
        rows.append((t, source, first, len(moves), at))
    table = np.asarray(moves or [(0, 0, 0)], np.int32).T
    return Schedule(_Rows(*np.asarray(rows, np.int32).T), _Table(*table))


def _first_run(steps: int, slots: int) -> int:
    """How far to run before the next state is stored: the split of revolve.

    ``steps`` are to be pulled back with ``slots`` >= 2 states, the one we stand on included.
    """
    r = repetitions(steps, slots)
    # The part behind the new state has slots - 1 states; the part before it is repeated once less.
    shortest = max(steps - _covered(slots - 1, r), _covered(slots, r - 2))
    return max(1, min(steps - 1, shortest))


def repetitions(steps: int, slots: int) -> int:
    """The least r with C(slots + r, r) >= steps: how often a step is run again at most."""
    r = 0
    while _covered(slots, r) < steps:
        r += 1
    return r


def _covered(slots: int, repetitions: int) -> int:
    return math.comb(slots + repetitions, repetitions) if repetitions >= 0 else 0


def _record(chain: Chain, state: State, steps: Array) -> tuple[State, PyTree]:
    def record(state: State, t: Array) -> tuple[State, PyTree]:
        after, memory = chain.remember(state, t)
        return after, (state, memory)

    return jax.lax.scan(record, state, steps)


def _replay(chain: Chain, tape: PyTree, steps: Array, cotangents: PyTree) -> PyTree:
    def replay(cotangents: PyTree, row: tuple[Array, tuple[State, PyTree]]) -> tuple[PyTree, None]:
        t, (state, memory) = row
        return chain.pull_back(cotangents, state, memory, t), None

    cotangents, _ = jax.lax.scan(replay, cotangents, (steps, tape), reverse=True)
    return cotangents
