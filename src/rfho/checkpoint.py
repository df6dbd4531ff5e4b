"""How much of the trajectory is kept for the way back: memory against time.

A policy runs the trajectory forward and leaves a *tape*; later it walks the tape backwards and
hands every step to the caller's ``pull_back``. All policies visit the same states in the same
order, so the hypergradient does not depend on the policy; only the number of stored states and of
repeated steps does.

    StoreAll            T states           every step run once
    Recompute           2 √T states        every step run twice
    Binomial(slots)     ``slots`` states   at most r + 1 times, with C(slots + r, r) >= T

`Binomial` is the schedule of Griewank and Walther's revolve (ACM TOMS 26(1), 2000), provably
optimal.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
        needed: ``() -> (kept, dropped)``: the (state, memory) of a step, abstract; first what
            ``pull_back`` uses, then the rest, each with None in place of the other's leaves.
        invert: ``(state, t) -> (state, memory)``, from the state after step t to the one before it;
            None where a step cannot be undone.
    """

    step: Callable[[State, Step], State]
    remember: Callable[[State, Step], tuple[State, PyTree]]
    pull_back: Callable[[PyTree, State, PyTree, Step], PyTree]
    needed: Callable[[], tuple[PyTree, PyTree]]
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
    """A memory policy.

    The tape is memory that the caller owns: `blank` makes it, `forward` and `backward` fill it and hand it
    back. A caller that donates it from one hypergradient to the next touches no fresh memory, which on a
    CPU is worth a good part of a training run.
    """

    @abc.abstractmethod
    def keep(self) -> Keep:
        """What of each step the policy asks the dynamics to keep."""

    @abc.abstractmethod
    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """A tape for this span, with nothing on it."""

    @abc.abstractmethod
    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """The state after the span, and the tape."""

    @abc.abstractmethod
    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """``cotangents`` pulled back through all steps of the span, last first; and the used tape."""


def advance(chain: Chain, state: State, start: Step, count: Step) -> State:
    """The state after the steps t = start, …, start + count - 1, none of them kept."""
    return jax.lax.fori_loop(0, count, lambda i, s: chain.step(s, start + i), state)


class AbstractStorage(eqx.Module):
    """In which form a step's memory (gradients, residuals) lies on the tape; states are always exact."""

    @abc.abstractmethod
    def encode(self, memory: PyTree) -> PyTree:
        """What is written."""

    @abc.abstractmethod
    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """What is read, with the dtypes of ``like``."""


class Exact(AbstractStorage):
    """As it is."""

    def encode(self, memory: PyTree) -> PyTree:
        """Itself."""
        return memory

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """Itself."""
        del like
        return stored


class HalfPrecision(AbstractStorage):
    """Rounded to bfloat16: half the memory, and a relative error of at most 2⁻⁸ in each stored number.

    The hypergradient's own error is far smaller, as roundings of many steps average out; measure it against
    `Exact` on your problem. The bits are stored as uint16, since bfloat16 arrays are slow in loops on CPU.
    """

    def encode(self, memory: PyTree) -> PyTree:
        """Floating-point leaves rounded, the others as they are."""
        return jax.tree.map(_to_half, memory)

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """The rounded numbers in their old dtype."""
        return jax.tree.map(_from_half, stored, like)


def _to_half(leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf.astype(jnp.bfloat16), jnp.uint16)


def _from_half(leaf: Array, like: Array) -> Array:
    if not jnp.issubdtype(like.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf, jnp.bfloat16).astype(like.dtype)


class StoreAll(AbstractCheckpoint):
    """Every state is kept: the fastest way back, memory O(T) states.

    Args:
        keeping: what is kept of each step beside the state, see `rfho.Keep`.
        storage: in which form that is stored, `Exact` or `HalfPrecision`.

    Example:
        >>> import rfho
        >>> policy = rfho.StoreAll(keeping=rfho.Keep.STATES)
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(checkpoint=policy)
    """

    keeping: Keep = eqx.field(static=True, default=Keep.GRADIENTS)
    storage: AbstractStorage = eqx.field(default_factory=Exact)

    def keep(self) -> Keep:
        """As configured."""
        return self.keeping

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """T states and memories."""
        return _blank_record(self.storage, chain, span.length)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """Writes the state before each step and the memory of each."""
        return _record(self.storage, chain, state, tape=tape, start=span.start, count=span.length)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Reads them in reverse."""
        start, count = span.start, span.length
        return _replay(
            self.storage, chain, tape, cotangents=cotangents, start=start, count=count
        ), tape


class Recompute(AbstractCheckpoint):
    """The state at the start of every segment is kept; a segment is run again when its turn comes.

    The last segment is not: its turn comes first, while it is still on the tape.

    Args:
        segment: steps per segment; √T by default, which needs the least memory: about 2 √T states. With
            T / 2 the memory is half that of `StoreAll`, and half the steps are repeated.
        keeping: what is kept of each step within the segment on the way back.
        storage: in which form that is stored.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(
        ...     checkpoint=rfho.Recompute(segment=100)
        ... )
    """

    segment: int | None = eqx.field(static=True, default=None)
    keeping: Keep = eqx.field(static=True, default=Keep.GRADIENTS)
    storage: AbstractStorage = eqx.field(default_factory=Exact)

    def __check_init__(self) -> None:
        if self.segment is not None and (not isinstance(self.segment, int) or self.segment < 1):
            raise ValueError(
                f"Recompute got segment={self.segment!r}, but it must be an int of 1 or more"
            )

    def keep(self) -> Keep:
        """As configured."""
        return self.keeping

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """The states at the starts of all segments but the last, and the record of one segment."""
        starts = _blank_states(state, self._count(span) - 1)
        return starts, _blank_record(self.storage, chain, self._length(span))

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """All segments but the last without their steps, the last with them."""
        starts, record = tape

        def segment(i: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
            state, starts = at
            starts = _put(starts, state, i)
            return advance(chain, state, *self._steps(span, i)), starts

        last = self._count(span) - 1
        state, starts = jax.lax.fori_loop(0, last, segment, (state, starts))
        start, count = self._steps(span, last)
        state, record = _record(self.storage, chain, state, tape=record, start=start, count=count)
        return state, (starts, record)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The last segment from the tape; the others, last first, run again and replayed."""
        starts, record = tape
        last = self._count(span) - 1

        def replay(i: Step, record: PyTree, cotangents: PyTree) -> PyTree:
            start, count = self._steps(span, i)
            return _replay(
                self.storage, chain, record, cotangents=cotangents, start=start, count=count
            )

        def segment(back: Array, at: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            cotangents, record = at
            i = last - 1 - back
            start, count = self._steps(span, i)
            _, record = _record(
                self.storage, chain, _get(starts, i), tape=record, start=start, count=count
            )
            return replay(i, record, cotangents), record

        # The barrier keeps the record from being overwritten, and hence copied, while it is still read.
        cotangents = replay(last, record, cotangents)
        cotangents, record = jax.lax.optimization_barrier((cotangents, record))
        cotangents, record = jax.lax.fori_loop(0, last, segment, (cotangents, record))
        return cotangents, (starts, record)

    def _length(self, span: Span) -> int:
        return min(self.segment or max(1, math.isqrt(span.length)), span.length)

    def _count(self, span: Span) -> int:
        return -(-span.length // self._length(span))

    def _steps(self, span: Span, i: Step) -> tuple[Step, Step]:
        """Start and length of segment i; the first takes what does not divide evenly."""
        length = self._length(span)
        short = self._count(span) * length - span.length
        begin = jnp.maximum(i * length - short, 0)
        return span.start + begin, (i + 1) * length - short - begin


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

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """The slots."""
        return _blank_states(state, self.slots)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """To the end without a stop, with the initial state in the first slot."""
        return advance(chain, state, span.start, span.length), _put(tape, state, 0)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The schedule as data: one loop over the steps, each with its moves in the table."""
        moves = jax.tree.map(jnp.asarray, schedule(span.length, self.slots))
        table = moves.table

        def store(i: Array, at: tuple[PyTree, State]) -> tuple[PyTree, State]:
            slots, state = at
            state = advance(chain, state, span.start + table.start[i], table.length[i])
            return _put(slots, state, table.slot[i]), state

        def pull(i: Array, at: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            cotangents, slots = at
            row = jax.tree.map(lambda column: column[i], moves.rows)
            slots, state = jax.lax.fori_loop(
                row.first, row.last, store, (slots, _get(slots, row.source))
            )
            state = advance(chain, state, span.start + row.start, row.t - row.start)
            t = span.start + row.t
            _, memory = chain.remember(state, t)
            return chain.pull_back(cotangents, state, memory, t), slots

        return jax.lax.fori_loop(0, span.length, pull, (cotangents, tape))


class _Rows(NamedTuple):
    """One row per step to pull back, last step first."""

    t: Int[Any, " steps"]
    source: Int[Any, " steps"]  # the slot to start from
    first: Int[Any, " steps"]  # moves first..last-1 of the table, each of which fills a slot
    last: Int[Any, " steps"]
    start: Int[Any, " steps"]  # where the state is after the moves


class _Table(NamedTuple):
    """Moves: from step ``start`` run ``length`` steps and put the state into ``slot``."""

    start: Int[Any, " moves"]
    length: Int[Any, " moves"]
    slot: Int[Any, " moves"]


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


def _blank_record(storage: AbstractStorage, chain: Chain, count: int) -> PyTree:
    state, memory = chain.needed()[0]
    return _blank_states((state, jax.eval_shape(storage.encode, memory)), count)


def _blank_states(state: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), state)


def _put(tape: PyTree, entry: PyTree, i: Step) -> PyTree:
    return jax.tree.map(
        lambda row, leaf: jax.lax.dynamic_update_index_in_dim(row, leaf, i, 0), tape, entry
    )


def _get(tape: PyTree, i: Step) -> PyTree:
    return jax.tree.map(lambda row: jax.lax.dynamic_index_in_dim(row, i, 0, keepdims=False), tape)


def _record(
    storage: AbstractStorage, chain: Chain, state: State, *, tape: PyTree, start: Step, count: Step
) -> tuple[State, PyTree]:
    is_none = lambda leaf: leaf is None  # noqa: E731
    is_kept = jax.tree.map(lambda leaf: leaf is not None, chain.needed()[0], is_leaf=is_none)

    def record(i: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
        state, tape = at
        after, memory = chain.remember(state, start + i)
        state, memory = eqx.filter((state, memory), is_kept)
        return after, _put(tape, (state, storage.encode(memory)), i)

    return jax.lax.fori_loop(0, count, record, (state, tape))


def _replay(
    storage: AbstractStorage,
    chain: Chain,
    tape: PyTree,
    *,
    cotangents: PyTree,
    start: Step,
    count: Step,
) -> PyTree:
    (_, like), dropped = chain.needed()
    unused = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), dropped)

    def replay(back: Array, cotangents: PyTree) -> PyTree:
        i = count - 1 - back
        state, stored = _get(tape, i)
        state, memory = eqx.combine((state, storage.decode(stored, like)), unused)
        return chain.pull_back(cotangents, state, memory, start + i)

    return jax.lax.fori_loop(0, count, replay, cotangents)
