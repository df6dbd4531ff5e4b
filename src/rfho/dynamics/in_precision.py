"""Dynamics whose steps compute in one precision, and are pulled back in another.

    s_t = Φ̃(s_{t-1}, λ, b_t)        (α, λ̄) ← (α Â_t, λ̄ + α B̂_t)

Φ̃ is Φ with a loss that is given its parameters and its batch in few digits; Â_t and B̂_t are the derivatives of Φ, in
more digits, at the states that Φ̃ has come to. The state itself holds the master weights.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rfho.dynamics.base import AbstractDynamics, Keep, Way
from rfho.dynamics.inner_gradient import InnerGradient
from rfho.typing import Batch, Hyper, Params, PyTree, State


class InPrecision(AbstractDynamics):
    """``taken`` on the way forward, ``pulled`` on the way back.

    Attributes:
        taken: whose steps are taken.
        pulled: whose steps are pulled back; a state of one is a state of the other.
        states: the dtype of the floating-point leaves of states, λ and batches on the way forward; None as given.
        adjoints: the dtype in which steps are pulled back, and what is pulled back is carried; None as they come.

    Whoever computes in more digits is given λ and the batch in them too: a loss may cast what it computes to the
    dtype of either.
    """

    taken: AbstractDynamics
    pulled: AbstractDynamics
    states: DTypeLike | None = eqx.field(static=True, default=None)
    adjoints: DTypeLike | None = eqx.field(static=True, default=None)

    def init(self, hyper: Hyper) -> State:
        """Φ_0(λ), in the dtype of states."""
        return floats_as(self.taken.init(floats_as(hyper, self.states)), self.states)

    def step(self, state: State, hyper: Hyper, batch: Batch) -> State:
        """Φ̃(s, λ, b), in the dtypes of s."""
        hyper, batch = floats_as((hyper, batch), self.states)
        return _like(self.taken.step(state, hyper, batch), state)

    def output(self, state: State) -> Params:
        """Of the dynamics that are pulled back."""
        return self.pulled.output(state)

    def wide(self, values: PyTree) -> PyTree:
        """``values`` in the dtype of adjoints."""
        return floats_as(values, self.adjoints)

    def way(self, keep: Keep) -> Way:
        """Steps as they are taken, and pulled back in more digits.

        Raises:
            ValueError: residuals are to be kept of steps whose products are not those of the way back.
        """
        taken, pulled = self.taken.way(keep), self.pulled.way(keep)
        same = self.taken is self.pulled and self.adjoints is None
        if keep is Keep.RESIDUALS and not same:
            raise ValueError(
                "precision= got a policy that keeps residuals, but those of the steps are not in the precision of "
                "the way back: write keep=rfho.Keep.GRADIENTS"
            )

        def remember(state: State, hyper: Hyper, batch: Batch) -> tuple[State, PyTree]:
            hyper, batch = floats_as((hyper, batch), self.states)
            after, memory = taken.remember(state, hyper, batch)
            return _like(after, state), memory

        def pull_back(
            adjoint: PyTree, state: State, memory: PyTree, hyper: Hyper, batch: Batch
        ) -> tuple[PyTree, PyTree]:
            adjoint, state, memory, hyper, batch = self.wide((adjoint, state, memory, hyper, batch))
            return pulled.pull_back(adjoint, state, memory, hyper, batch)

        return Way(remember, pull_back, taken.invert if same else None, taken.again)


class _Narrowed(eqx.Module):
    """A loss that is given parameters and batch in ``dtype``; what it returns in that dtype is widened again."""

    loss: Callable[[Params, Hyper, Batch], Any]
    dtype: DTypeLike = eqx.field(static=True)

    def __call__(self, params: Params, hyper: Hyper, batch: Batch) -> Any:
        master = jnp.result_type(*filter(_is_float, jax.tree.leaves(params)))
        returned = self.loss(floats_as(params, self.dtype), hyper, floats_as(batch, self.dtype))
        widened = lambda leaf: leaf.astype(master) if leaf.dtype == self.dtype else leaf  # noqa: E731
        return jax.tree.map(lambda leaf: widened(leaf) if _is_float(leaf) else leaf, returned)


def narrowed(dynamics: AbstractDynamics, dtype: DTypeLike) -> AbstractDynamics:
    """The same dynamics, whose loss is given parameters and batch in ``dtype``.

    Raises:
        TypeError: there is no such loss.
    """
    inner = getattr(dynamics, "inner", None)
    if not isinstance(inner, InnerGradient):
        raise TypeError(
            f"precision= got {type(dynamics).__name__}, but it can cast what the loss of a Descent or a HeavyBall "
            "is given: cast inside your own step, and ask rfho.checks.rounding what it costs"
        )
    return eqx.tree_at(lambda of: of.inner.loss, dynamics, _Narrowed(inner.loss, dtype))


def floats_as(values: PyTree, dtype: DTypeLike | None) -> PyTree:
    """``values`` with their floating-point arrays in ``dtype``; as they are for None."""
    if dtype is None:
        return values
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_float(leaf) else leaf, values)


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _like(state: State, like: State) -> State:
    return jax.tree.map(
        lambda leaf, old: leaf.astype(old.dtype) if _is_float(leaf) else leaf, state, like
    )
