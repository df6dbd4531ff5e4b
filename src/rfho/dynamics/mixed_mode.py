"""A gradient pulled back by forward-over-reverse, with what the loss returns beside its value.

Pulling a cotangent v back through g = ∇_w L(w, θ) by reverse mode differentiates a reverse sweep in
reverse. Because second derivatives commute, the same comes from one forward sweep over a gradient,
and what the loss returns beside its value, a(w, θ) with cotangent c, takes part in it:

    (∂g/∂(w, θ))ᵀ v + (∂a/∂(w, θ))ᵀ c = d/dε [∇_(w,θ) L + (∂a/∂(w, θ))ᵀ ε c](w + ε v, θ)  at ε = 0

It needs neither the memory nor the time of reverse-over-reverse (arXiv 2505.00793 calls it mixed
mode).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rfho._programs import trees as tree
from rfho.typing import Params, PyTree, Scalar

Outputs = Callable[[Params, PyTree], tuple[Scalar, PyTree]]
"""``(w, θ) -> (L, a)``, all of them inexact arrays."""


def slopes(
    outputs: Outputs, params: Params, others: PyTree, *, seed: PyTree
) -> tuple[Params, PyTree]:
    """∇_(w,θ) L + (∂a/∂(w, θ))ᵀ c, c the seed."""
    value, vjp = jax.vjp(outputs, params, others)
    return vjp((jnp.ones_like(value[0]), seed))


def pulled_back(
    outputs: Outputs, params: Params, others: PyTree, *, cotangents: tuple[Params, PyTree]
) -> tuple[Params, PyTree]:
    """The cotangents of w and θ from those of ∇_w L and of a."""
    v, c = cotangents
    along = lambda w, seed: slopes(outputs, w, others, seed=seed)  # noqa: E731
    return jax.jvp(along, (params, tree.zeros_like(c)), (v, c))[1]
