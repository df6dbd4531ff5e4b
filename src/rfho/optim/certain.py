"""Outer steps along those coordinates alone whose sign is certain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rfho.typing import PyTree


def certain(trust: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """Lets a coordinate of the hypergradient pass if it is larger than ``trust`` times its error; 0 otherwise.

    First of a chain, before an outer optimiser: what noise, bias or rounding may have turned around then moves
    nothing. The outer loop hands the error over, see `rfho.hyper_gradients.Estimate`.

    Args:
        trust: of how many errors a coordinate must be; 1 for a bound, 2 or 3 for the scatter of a random method.

    Raises:
        ValueError: ``trust`` is not a positive number.
        TypeError: in the first step, if the method says nothing about its error.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> optim = optax.chain(rfho.optim.certain(2.0), optax.sgd(0.1))
        >>> state = optim.init(jnp.zeros(2))
        >>> error = jnp.full(2, 0.3)
        >>> updates, _ = optim.update(jnp.array([1.0, -0.5]), state, error=error)
        >>> [round(abs(float(update)), 3) for update in updates]
        [0.1, 0.0]
    """
    number = isinstance(trust, int | float) and not isinstance(trust, bool)
    if not number or not 0 < trust < float("inf"):
        raise ValueError(f"certain got trust={trust!r}, but it must be a positive number")

    def init(params: PyTree) -> Any:
        return optax.EmptyState()

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        error = extra.get("error")
        if error is None:
            raise TypeError(
                "certain asks how wrong a hypergradient may be, but the method says nothing about its error: leave "
                "trust out, or take a method that does (ReverseHyperGradient, ImplicitHyperGradient with its audit, "
                "TruncatedHyperGradient, RandomForwardHyperGradient)"
            )

        def passed(leaf: Array, error: Array) -> Array:
            return jnp.where(jnp.abs(leaf) > trust * error, leaf, jnp.zeros_like(leaf))

        return jax.tree.map(passed, updates, error), state

    return optax.GradientTransformationExtraArgs(init, update)
