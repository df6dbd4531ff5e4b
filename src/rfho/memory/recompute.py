"""The state at the start of every segment is kept; segments are run again."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._programs import trees as tree
from rfho.dynamics import Keep
from rfho.errors import positive_int
from rfho.memory.checkpoint import (
    AbstractCheckpoint,
    Chain,
    Segments,
    Span,
    Steps,
    advance,
    entry_of,
    segments_of,
)
from rfho.memory.encoding import AbstractEncoding, Exact
from rfho.memory.tape import Record, Rows, rows_of_states
from rfho.typing import PyTree, State


class Recompute(AbstractCheckpoint):
    """The state at the start of every segment is kept; a segment is run again when its turn comes.

    The last segment is not: its turn comes first, while it is still on the tape.

    Args:
        segment: steps per segment; by default what needs the least memory, about √T, and 2 √T states in
            all. With T / 2 the memory is half that of `StoreAll`, and half the steps are repeated.
        keep: what is kept of each step within the segment on the way back.
        encoding: in which form that is stored, and the states between segments; and in which memory.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(
        ...     checkpoint=rfho.Recompute(segment=100)
        ... )
    """

    segment: int | None = eqx.field(static=True, default=None)
    keep: Keep = eqx.field(static=True, default=Keep.GRADIENTS)
    encoding: AbstractEncoding = eqx.field(default_factory=Exact)

    def __check_init__(self) -> None:
        if self.segment is not None:
            positive_int(self.segment, "segment", type(self).__name__)

    def keeps(self) -> Keep:
        """As configured."""
        return self.keep

    def segments(self, chain: Chain, span: Span) -> Segments:
        """The segments; by default those that make T/K states and K records smallest in all.

        K is then the root of T times the bytes of a state by those of a record.
        """
        if self.segment is not None:
            return segments_of(span, self.segment)
        whole_state, _ = entry_of(chain)
        state, memory = chain.needed()[0]
        record = state, jax.eval_shape(self.encoding.encode, memory)
        share = tree.nbytes(whole_state) / max(1, tree.nbytes(record))
        return segments_of(span, max(1, round(math.sqrt(span.length * share))))

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """All but those of the last segment are taken twice."""
        return Steps(span.length - self.segments(chain, span).length, span.length)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """The states at the starts of all segments but the last, and the record of one segment."""
        segments = self.segments(chain, span)
        # One row more than is used where there is a single segment: a loop needs a row to trace.
        starts = self._starts(chain).blank(max(1, segments.number - 1))
        return starts, Record(self.encoding, chain).blank(segments.length)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """All segments but the last without their steps, the last with them."""
        segments, of_starts = self.segments(chain, span), self._starts(chain)
        starts, record = tape

        def segment(i: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
            state, starts = at
            return advance(chain, state, *segments.steps(i)), of_starts.put(starts, state, i)

        last = segments.number - 1
        state, starts = jax.lax.fori_loop(0, last, segment, (state, starts))
        start, count = segments.steps(last)
        state, record = Record(self.encoding, chain).write(state, record, start=start, count=count)
        return state, (starts, record)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The last segment from the tape; the others, last first, run again and read back."""
        segments, of_starts = self.segments(chain, span), self._starts(chain)
        steps = Record(self.encoding, chain)
        starts, record = tape
        last = segments.number - 1

        def segment(back: Array, at: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            cotangents, record = at
            i = last - back
            start, count = segments.steps(i)
            # No step of the last segment is run again: `forward` left it on the tape.
            again = jnp.where(back == 0, 0, count)
            _, record = steps.write(of_starts.get(starts, i), record, start=start, count=again)
            return steps.pull_back(cotangents, record, start=start, count=count), record

        cotangents, record = jax.lax.fori_loop(0, segments.number, segment, (cotangents, record))
        return cotangents, (starts, record)

    def _starts(self, chain: Chain) -> Rows:
        return rows_of_states(self.encoding, entry_of(chain)[0])
