"""The state at the start of every segment is kept; segments are run again."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho.dynamics import Keep
from rfho.errors import positive_int
from rfho.memory.checkpoint import (
    AbstractCheckpoint,
    Chain,
    Segments,
    Span,
    Steps,
    advance,
    blank_record,
    blank_states,
    entry_of,
    get,
    put,
    read_record,
    segments_of,
    write_record,
)
from rfho.memory.encoding import AbstractStorage, Exact
from rfho.typing import PyTree, State


class Recompute(AbstractCheckpoint):
    """The state at the start of every segment is kept; a segment is run again when its turn comes.

    The last segment is not: its turn comes first, while it is still on the tape.

    Args:
        segment: steps per segment; by default what needs the least memory, about √T, and 2 √T states in
            all. With T / 2 the memory is half that of `StoreAll`, and half the steps are repeated.
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
        if self.segment is not None:
            positive_int(self.segment, "segment", type(self).__name__)

    def keep(self) -> Keep:
        """As configured."""
        return self.keeping

    def segments(self, chain: Chain, span: Span) -> Segments:
        """The segments; by default those that make T/K states and K records smallest in all.

        K is then the root of T times the bytes of a state by those of a record.
        """
        if self.segment is not None:
            return segments_of(span, self.segment)
        whole_state, _ = entry_of(chain)
        state, memory = chain.needed()[0]
        record = state, jax.eval_shape(self.storage.encode, memory)
        share = tree.nbytes(whole_state) / max(1, tree.nbytes(record))
        return segments_of(span, max(1, round(math.sqrt(span.length * share))))

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """All but those of the last segment are taken twice."""
        return Steps(span.length - self.segments(chain, span).length, span.length)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """The states at the starts of all segments but the last, and the record of one segment."""
        segments = self.segments(chain, span)
        # One row more than is used where there is a single segment: a loop needs a row to trace.
        starts = blank_states(state, max(1, segments.number - 1))
        return starts, blank_record(self.storage, chain, segments.length)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """All segments but the last without their steps, the last with them."""
        segments = self.segments(chain, span)
        starts, record = tape

        def segment(i: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
            state, starts = at
            return advance(chain, state, *segments.steps(i)), put(starts, state, i)

        last = segments.number - 1
        state, starts = jax.lax.fori_loop(0, last, segment, (state, starts))
        start, count = segments.steps(last)
        state, record = write_record(
            self.storage, chain, state, record=record, start=start, count=count
        )
        return state, (starts, record)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The last segment from the tape; the others, last first, run again and read back."""
        segments = self.segments(chain, span)
        starts, record = tape
        last = segments.number - 1

        def segment(back: Array, at: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            cotangents, record = at
            i = last - back
            start, count = segments.steps(i)
            # No step of the last segment is run again: `forward` left it on the tape.
            again = jnp.where(back == 0, 0, count)
            _, record = write_record(
                self.storage, chain, get(starts, i), record=record, start=start, count=again
            )
            cotangents = read_record(
                self.storage, chain, cotangents, record=record, start=start, count=count
            )
            return cotangents, record

        cotangents, record = jax.lax.fori_loop(0, segments.number, segment, (cotangents, record))
        return cotangents, (starts, record)
