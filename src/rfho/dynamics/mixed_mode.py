"""A gradient pulled back by forward-over-reverse, with what the loss brings back beside its value.

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

from rfho import _tree as tree
from rfho.typing import Params, PyTree, Scalar


def pulled_back(
    function: Callable[[Params, PyTree], tuple[Scalar, PyTree]],
    params: Params,
    others: PyTree,
    *,
    cotangents: tuple[Params, PyTree],
) -> tuple[PyTree, PyTree]:
    """The cotangents of ``params`` and ``others`` from those of the gradient by ``params``, and of aux.

    Args:
        function: ``(params, others) -> (L, aux)``; aux of inexact arrays.
        params: w, of inexact arrays.
        others: θ, likewise.
        cotangents: v in the structure of ``params``, and c in that of aux.
    """
    along, seed = cotangents

    def slopes(params: Params, seed: PyTree) -> tuple[PyTree, PyTree]:
        value, vjp = jax.vjp(function, params, others)
        return vjp((jnp.ones_like(value[0]), seed))

    _, (by_params, by_others) = jax.jvp(slopes, (params, tree.zeros_like(seed)), (along, seed))
    return by_params, by_others
