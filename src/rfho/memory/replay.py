"""The gradient of every step is kept, and states come again from their gradients."""

from collections.abc import Callable

import equinox as eqx
import jax
from jax import Array

from rfho.dynamics import Keep
from rfho.errors import positive_int
from rfho.memory.checkpoint import (
    AbstractCheckpoint,
    Chain,
    Span,
    Steps,
    entry_of,
    segments_of,
)
from rfho.memory.encoding import AbstractEncoding, Exact
from rfho.memory.tape import Rows, rows_of_memories, rows_of_states
from rfho.typing import PyTree, State, Step


class Replay(AbstractCheckpoint):
    """Gradients of all steps and states of few: no gradient is computed twice.

    The state at the start of every segment is kept. On the way back the states within a segment come
    again from its gradients by the optimiser's update alone, which costs a small part of a step. Where
    the state is larger than the parameters (momentum, Adam) this needs a half to a third of the memory
    of `StoreAll` at nearly its speed.

    Args:
        segment: steps per segment, √T by default.
        encoding: in which form gradients are stored, and in which memory all is. `HalfPrecision` rounds them,
            and with them the states that come again within a segment.

    Cost:
        Time as `StoreAll` and T updates; memory T gradients and 2 √T states.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(checkpoint=rfho.Replay())
    """

    segment: int | None = eqx.field(static=True, default=None)
    encoding: AbstractEncoding = eqx.field(default_factory=Exact)

    def __check_init__(self) -> None:
        if self.segment is not None:
            positive_int(self.segment, "segment", type(self).__name__)

    def keeps(self) -> Keep:
        """Gradients."""
        return Keep.GRADIENTS

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """Each is written down, and its update taken once more."""
        return Steps(0, span.length, again=span.length)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """Segment starts, gradients of all steps, and the states of one segment.

        Raises:
            TypeError: the dynamics have no gradients to keep.
        """
        _again(chain)
        segments = segments_of(span, self.segment)
        of_states, of_gradients = self._rows(chain)
        gradients = of_gradients.blank(span.length)
        return of_states.blank(segments.number), gradients, of_states.blank(segments.length)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """Every step, its gradient written down; the state at each start of a segment."""
        segments = segments_of(span, self.segment)
        of_states, of_gradients = self._rows(chain)

        def segment(i: Array, at: tuple[State, PyTree, PyTree]) -> tuple[State, PyTree, PyTree]:
            state, starts, gradients = at
            starts = of_states.put(starts, state, i)
            start, count = segments.steps(i)

            def one(j: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
                state, gradients = at
                after, memory = chain.remember(state, start + j)
                return after, of_gradients.put(gradients, memory, start + j - span.start)

            state, gradients = jax.lax.fori_loop(0, count, one, (state, gradients))
            return state, starts, gradients

        starts, gradients, states = tape
        state, starts, gradients = jax.lax.fori_loop(
            0, segments.number, segment, (state, starts, gradients)
        )
        return state, (starts, gradients, states)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Segment by segment, last first: its states again, then each step pulled back."""
        segments = segments_of(span, self.segment)
        starts, gradients, states = tape
        of_states, of_gradients = self._rows(chain)
        take_again = _again(chain)

        def gradient(t: Step) -> PyTree:
            return of_gradients.get(gradients, t - span.start)

        def segment(back: Array, at: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            cotangents, states = at
            i = segments.number - 1 - back
            start, count = segments.steps(i)

            def again(j: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
                state, states = at
                t = start + j
                state = take_again(state, gradient(t), t)
                return state, of_states.put(states, state, j + 1)

            def pull(back: Array, cotangents: PyTree) -> PyTree:
                j = count - 1 - back
                t = start + j
                return chain.pull_back(cotangents, of_states.get(states, j), gradient(t), t)

            first = of_states.get(starts, i)
            states = of_states.put(states, first, 0)
            _, states = jax.lax.fori_loop(0, count - 1, again, (first, states))
            return jax.lax.fori_loop(0, count, pull, cotangents), states

        cotangents, states = jax.lax.fori_loop(0, segments.number, segment, (cotangents, states))
        return cotangents, (starts, gradients, states)

    def _rows(self, chain: Chain) -> tuple[Rows, Rows]:
        state, gradient = entry_of(chain)
        return rows_of_states(self.encoding, state), rows_of_memories(self.encoding, gradient)


def _again(chain: Chain) -> Callable[[State, PyTree, Step], State]:
    if chain.again is None:
        raise TypeError(
            "Replay takes steps again from their gradients, which only rfho.Descent keeps: use "
            "rfho.Recompute"
        )
    return chain.again
