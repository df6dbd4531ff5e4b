"""Every state is kept."""

import equinox as eqx

from rfho.dynamics import Keep
from rfho.memory.checkpoint import AbstractCheckpoint, Chain, Span, Steps
from rfho.memory.encoding import AbstractEncoding, Exact
from rfho.memory.tape import Record
from rfho.typing import PyTree, State


class StoreAll(AbstractCheckpoint):
    """Every state is kept: the fastest way back, memory O(T) states.

    Args:
        keep: what is kept of each step beside the state, see `rfho.Keep`.
        encoding: in which form that is stored, `Exact` or `HalfPrecision`, and in which memory, `HostMemory`.

    Example:
        >>> import rfho
        >>> policy = rfho.StoreAll(keep=rfho.Keep.STATES)
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(checkpoint=policy)
    """

    keep: Keep = eqx.field(static=True, default=Keep.GRADIENTS)
    encoding: AbstractEncoding = eqx.field(default_factory=Exact)

    def keeps(self) -> Keep:
        """As configured."""
        return self.keep

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """Each is written down."""
        return Steps(0, span.length)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """T states and memories."""
        return Record(self.encoding, chain).blank(span.length)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """Writes the state before each step and the memory of each."""
        record = Record(self.encoding, chain)
        return record.write(state, tape, start=span.start, count=span.length)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Reads them in reverse."""
        record = Record(self.encoding, chain)
        return record.pull_back(cotangents, tape, start=span.start, count=span.length), tape
