"""Undoing steps in floats, from a stored state to the one before it.

Between two stored states, the anchors, the way back computes every state from the one after it.
That costs the gradient which the way back needs anyway, so that memory falls by a factor K at the
speed of `StoreAll`, where the dynamics can be undone. Rounding errors grow by 1/μ per step: at each
anchor the state that came back is compared with the one that was stored.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from rfho._programs import trees as tree
from rfho.dynamics import Keep, steps_undone_within
from rfho.errors import positive_int
from rfho.memory.checkpoint import (
    AbstractCheckpoint,
    Chain,
    Segments,
    Span,
    Steps,
    advance,
    segments_of,
)
from rfho.memory.encoding import Exact
from rfho.memory.tape import Rows, rows_of_states, zeros_of
from rfho.typing import PyTree, State, Step


class Anchored(AbstractCheckpoint):
    """Every K-th state is kept; those between are recovered by undoing steps, in floats.

    For `HeavyBall`, or any dynamics whose `Way` has an ``invert``.

    Args:
        every: K, steps between anchors. By default as many as can be undone within ``tolerance``
            at ``momentum``, see `steps_undone_within`: 13 in float32, 204 in float64.
        momentum: the least momentum that training sees; of use only where ``every`` is not given.
        tolerance: relative error of a recovered state that is accepted. If at any anchor more than
            this is found, the hypergradient is NaN rather than wrong: choose a smaller ``every``.

    Cost:
        Time of a step forward, of a gradient and of a Hessian-vector product back; memory T/K
        states. `Recompute` needs 2 √T states and one more step each, and has no error.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(rfho.Anchored(every=20))
    """

    every: int | None = eqx.field(static=True, default=None)
    momentum: float = eqx.field(static=True, default=0.9, kw_only=True)
    tolerance: float = eqx.field(static=True, default=1e-6, kw_only=True)

    def __check_init__(self) -> None:
        every, momentum, tolerance = self.every, self.momentum, self.tolerance
        if every is not None:
            positive_int(every, "every", "Anchored")
        if not 0 < momentum <= 1:
            raise ValueError(f"Anchored got momentum={momentum!r}, but it must be in (0, 1]")
        if not tolerance > 0:
            raise ValueError(f"Anchored got tolerance={tolerance!r}, but it must be positive")

    @property
    def undoes_steps(self) -> bool:
        """All but the anchors."""
        return True

    def keeps(self) -> Keep:
        """Residuals: a step is undone and pulled back with one linearisation."""
        return Keep.RESIDUALS

    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """Each is taken, and undone."""
        return Steps(span.length, 0, undone=span.length)

    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """The states at the starts of all stretches, and the last state.

        Raises:
            TypeError: the dynamics cannot undo a step.
        """
        if chain.invert is None:
            raise TypeError(
                "Anchored undoes steps, which these dynamics cannot: use rfho.HeavyBall, or a policy "
                "such as rfho.Recompute"
            )
        last = jax.tree.map(zeros_of, state)
        return _rows(state).blank(self._stretches(state, span).number), last

    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """Stretch after stretch, with the state at the start of each on the tape."""
        stretches, rows = self._stretches(state, span), _rows(state)

        def stretch(i: Array, at: tuple[State, PyTree]) -> tuple[State, PyTree]:
            state, anchors = at
            return advance(chain, state, *stretches.steps(i)), rows.put(anchors, state, i)

        anchors, _ = tape
        final, anchors = jax.lax.fori_loop(0, stretches.number, stretch, (state, anchors))
        return final, (anchors, final)

    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """From the end of each stretch to its anchor, last stretch first."""
        anchors, final = tape
        stretches, rows = self._stretches(final, span), _rows(final)

        def stretch(
            back: Array, at: tuple[PyTree, State, Bool[Array, ""]]
        ) -> tuple[PyTree, State, Bool[Array, ""]]:
            cotangents, end, sound = at
            i = stretches.number - 1 - back
            start, count = stretches.steps(i)
            cotangents, state = _undone(chain, end, cotangents, start=start, count=count)
            anchor = rows.get(anchors, i)
            return cotangents, anchor, sound & self._close(state, anchor, end)

        carry = cotangents, final, jnp.asarray(True)
        cotangents, _, sound = jax.lax.fori_loop(0, stretches.number, stretch, carry)
        return jax.tree.map(lambda leaf: jnp.where(sound, leaf, jnp.nan), cotangents), tape

    def _stretches(self, state: State, span: Span) -> Segments:
        if self.every is not None:
            return segments_of(span, self.every)
        dtypes = [
            leaf.dtype
            for leaf in jax.tree.leaves(state)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        coarsest = max(dtypes, key=lambda dtype: float(jnp.finfo(dtype).eps))
        return segments_of(span, steps_undone_within(self.tolerance, self.momentum, coarsest))

    def _close(self, state: State, anchor: State, end: State) -> Bool[Array, ""]:
        # Relative to either end: a run may start from zero.
        size = jnp.maximum(tree.norm(anchor), tree.norm(end))
        error = tree.norm(jax.tree.map(jnp.subtract, tree.inexact(state), tree.inexact(anchor)))
        return error <= self.tolerance * size


def _rows(like: State) -> Rows:
    return rows_of_states(Exact(), like)


def _undone(
    chain: Chain, end: State, cotangents: PyTree, *, start: Step, count: Step
) -> tuple[PyTree, State]:
    """Cotangents pulled back through ``count`` steps, whose states are recovered from ``end``."""
    invert = chain.invert
    if invert is None:
        raise TypeError("these dynamics cannot undo a step")

    def undo(back: Array, at: tuple[PyTree, State]) -> tuple[PyTree, State]:
        cotangents, after = at
        t = start + count - 1 - back
        before, memory = invert(after, t)
        return chain.pull_back(cotangents, before, memory, t), before

    return jax.lax.fori_loop(0, count, undo, (cotangents, end))
