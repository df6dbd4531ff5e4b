"""Outer steps along those coordinates alone whose sign is certain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rfho.typing import PyTree


class Certain(optax.GradientTransformationExtraArgs):
    """An outer optimiser that asks for the error of its gradient, as `certain` makes it."""


def certain(optim: optax.GradientTransformation, trust: float = 1.0) -> Certain:
    """``optim``, for which a coordinate of a hypergradient is 0 unless it exceeds ``trust`` times its error.

    What noise, bias or rounding may have turned around then moves nothing. The outer loop hands the error over, see
    `rfho.hyper_gradients.Estimate`; ``rfho.tune(..., trust=1.0)`` is the same.

    Args:
        optim: the outer optimiser.
        trust: of how many errors a coordinate must be; 1 for a bound, 2 or 3 for the scatter of a random method.

    Raises:
        ValueError: ``trust`` is not a positive number.
        TypeError: in the first step, if the method says nothing about its error.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> optim = rfho.optim.certain(optax.sgd(0.1), trust=2.0)
        >>> state = optim.init(jnp.zeros(2))
        >>> error = jnp.full(2, 0.3)
        >>> updates, _ = optim.update(jnp.array([1.0, -0.5]), state, error=error)
        >>> [round(abs(float(update)), 3) for update in updates]
        [0.1, 0.0]
    """
    number = isinstance(trust, int | float) and not isinstance(trust, bool)
    if not number or not 0 < trust < float("inf"):
        raise ValueError(f"certain got trust={trust!r}, but it must be a positive number")
    inner = optax.with_extra_args_support(optim)

    def passed(leaf: Array, error: Array) -> Array:
        return jnp.where(jnp.abs(leaf) > trust * error, leaf, jnp.zeros_like(leaf))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, error: PyTree = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        if error is None:
            raise TypeError(
                "certain asks how wrong a hypergradient may be, but the method says nothing about its error: leave "
                "trust out, or take a method that does (ReverseHyperGradient, ImplicitHyperGradient with its audit, "
                "TruncatedHyperGradient, RandomForwardHyperGradient)"
            )
        return inner.update(jax.tree.map(passed, updates, error), state, params, **extra)

    return Certain(inner.init, update)
