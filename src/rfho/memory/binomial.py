"""A number of states that the user chooses, with the fewest repeated steps that it allows.

The schedule is that of Griewank and Walther's revolve (ACM TOMS 26(1), 2000), provably optimal.
"""

import bisect
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from rfho.dynamics import Keep
from rfho.errors import positive_int
from rfho.memory.checkpoint import AbstractCheckpoint, Chain, Span, Steps, advance, entry_of
from rfho.memory.encoding import AbstractEncoding, Exact
from rfho.memory.tape import Rows, rows_of_states
from rfho.typing import PyTree, State


class Binomial(AbstractCheckpoint):
    """At most ``slots`` states at any time, with the fewest repeated steps that this allows.

    With r repetitions C(slots + r, r) steps are covered: 10 slots and 4 repetitions reach T = 1001.

    Args:
        slots: states that may be held, 1 or more.
        encoding: in which memory.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(checkpoint=rfho.Binomial(10))
    """

    slots: int = eqx.field(static=True)
    encoding: AbstractEncoding = eqx.field(default_factory=Exact)

    def __check_init__(self) -> None:
        positive_int(self.slots, "slots", "Binomial")

    def keeps(self) -> Keep:
        """Nothing: steps are pulled back one at a time, from their state."""
        return Keep.STATES

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """Those of the schedule; the state from which it goes on is held too."""
        more = steps_again(span.length, self.slots)
        return Steps(span.length + more, span.length, states=3)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """The slots."""
        return self._rows(chain).blank(self.slots)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """To the end without a stop, with the initial state in the first slot."""
        slots = self._rows(chain).put(tape, state, 0)
        return advance(chain, state, span.start, span.length), slots

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The schedule as data: one loop over the steps, each with its moves in the table."""
        moves = jax.tree.map(jnp.asarray, schedule(span.length, self.slots))
        table = moves.table
        rows = self._rows(chain)

        def store(i: Array, at: tuple[PyTree, State]) -> tuple[PyTree, State]:
            slots, state = at
            state = advance(chain, state, span.start + table.start[i], table.length[i])
            return rows.put(slots, state, table.slot[i]), state

        def pull(i: Array, at: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            cotangents, slots = at
            row = jax.tree.map(lambda column: column[i], moves.rows)
            slots, state = jax.lax.fori_loop(
                row.first, row.last, store, (slots, rows.get(slots, row.source))
            )
            state = advance(chain, state, span.start + row.start, row.t - row.start)
            t = span.start + row.t
            _, memory = chain.remember(state, t)
            return chain.pull_back(cotangents, state, memory, t), slots

        return jax.lax.fori_loop(0, span.length, pull, (cotangents, tape))

    def _rows(self, chain: Chain) -> Rows:
        return rows_of_states(self.encoding, entry_of(chain)[0])


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
    enough = 1
    while _covered(slots, enough) < steps:
        enough *= 2
    return bisect.bisect_left(range(enough), steps, key=lambda r: _covered(slots, r))


def steps_again(steps: int, slots: int) -> int:
    """How many steps the schedule runs on its way back: r T - C(slots + r, r - 1), with r `repetitions`."""
    r = repetitions(steps, slots)
    return r * steps - (math.comb(slots + r, r - 1) if r else 0)


def _covered(slots: int, repetitions: int) -> int:
    return math.comb(slots + repetitions, repetitions) if repetitions >= 0 else 0
