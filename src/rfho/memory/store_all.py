"""Every state is kept."""

import equinox as eqx

from rfho.dynamics import Keep
from rfho.memory.checkpoint import (
    AbstractCheckpoint,
    Chain,
    Span,
    Steps,
    blank_record,
    read_record,
    write_record,
)
from rfho.memory.encoding import AbstractStorage, Exact
from rfho.typing import PyTree, State


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

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """Each is written down."""
        return Steps(0, span.length)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """T states and memories."""
        return blank_record(self.storage, chain, span.length)

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """Writes the state before each step and the memory of each."""
        return write_record(
            self.storage, chain, state, record=tape, start=span.start, count=span.length
        )

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Reads them in reverse."""
        cotangents = read_record(
            self.storage, chain, cotangents, record=tape, start=span.start, count=span.length
        )
        return cotangents, tape
