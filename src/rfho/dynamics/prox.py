r"""Proximal operators: one step towards what a penalty without a gradient wants.

.. math:: \operatorname{prox}_{\eta \Omega}(z) = \arg\min_w \; \tfrac{1}{2\eta} \|w - z\|^2 + \Omega(w, \lambda)

Each is a function ``(point, rate, hyper) -> point``, made from how its weights follow from λ. Where the result is
exactly 0, so is its derivative: what is differentiated afterwards is the support alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho.typing import Hyper, Params, PyTree

Prox = Callable[[Params, Any, Hyper], Params]
"""``(point, rate, hyper) -> point``."""


def lasso(weight: Callable[[Hyper], PyTree]) -> Prox:
    """Of ``Σ λ_i |w_i|``: soft thresholding.

    Args:
        weight: ``hyper -> λ``, a scalar, or a tree prefix of the parameters with scalars or arrays of weights.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> shrink = rfho.dynamics.lasso(lambda hyper: hyper["l1"])
        >>> shrink(jnp.array([-2.0, 0.5, 3.0]), 1.0, {"l1": 1.0}).tolist()
        [-1.0, 0.0, 2.0]
    """

    def prox(point: Params, rate: Any, hyper: Hyper) -> Params:
        return _by_leaf(lambda z, weight: _shrunk(z, rate * weight), point, weight(hyper))

    return prox


def elastic_net(l1: Callable[[Hyper], PyTree], l2: Callable[[Hyper], PyTree]) -> Prox:
    """Of ``Σ λ_i |w_i| + ½ Σ μ_i w_i²``.

    Args:
        l1: ``hyper -> λ``, as in `lasso`.
        l2: ``hyper -> μ``, likewise.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> shrink = rfho.dynamics.elastic_net(lambda hyper: hyper["l1"], lambda hyper: 1.0)
        >>> shrink(jnp.array([-2.0, 0.5, 3.0]), 1.0, {"l1": 1.0}).tolist()
        [-0.5, 0.0, 1.0]
    """

    def prox(point: Params, rate: Any, hyper: Hyper) -> Params:
        shrunk = _by_leaf(lambda z, weight: _shrunk(z, rate * weight), point, l1(hyper))
        return _by_leaf(lambda z, weight: z / (1 + rate * weight), shrunk, l2(hyper))

    return prox


def group_lasso(weight: Callable[[Hyper], Any], groups: Int[Array, " features"]) -> Prox:
    """Of Σ_g λ_g ‖w_g‖, which keeps or drops whole groups.

    Args:
        weight: ``hyper -> λ``, a scalar or one for each group.
        groups: the group of each entry of the parameters (along their first axis), from 0 on.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> shrink = rfho.dynamics.group_lasso(lambda hyper: hyper, jnp.array([0, 0, 1]))
        >>> shrink(jnp.array([3.0, 4.0, 0.5]), 1.0, 2.5).tolist()
        [1.5, 2.0, 0.0]
    """
    number = int(jnp.max(groups)) + 1

    def prox(point: Params, rate: Any, hyper: Hyper) -> Params:
        def one(z: Array) -> Array:
            rows = jnp.sum(z.reshape(z.shape[0], -1) ** 2, axis=1)
            squares = jax.ops.segment_sum(rows, groups, number)
            # The root of 0 has no derivative, and its group none to give.
            some = squares > 0
            sizes = jnp.sqrt(jnp.where(some, squares, 1))
            kept = jnp.where(some, jnp.maximum(0, 1 - rate * weight(hyper) / sizes), 0)
            return z * kept[groups].reshape(-1, *(1,) * (z.ndim - 1))

        return jax.tree.map(one, point)

    return prox


def within(lower: Callable[[Hyper], PyTree], upper: Callable[[Hyper], PyTree]) -> Prox:
    """Of the box lower <= w <= upper: a projection.

    Args:
        lower: ``hyper -> bound``, a scalar, or a tree prefix of the parameters with scalars or arrays.
        upper: likewise.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> clip = rfho.dynamics.within(lambda hyper: 0.0, lambda hyper: hyper["most"])
        >>> clip(jnp.array([-2.0, 0.5, 3.0]), 1.0, {"most": 1.0}).tolist()
        [0.0, 0.5, 1.0]
    """

    def prox(point: Params, rate: Any, hyper: Hyper) -> Params:
        above = _by_leaf(jnp.maximum, point, lower(hyper))
        return _by_leaf(jnp.minimum, above, upper(hyper))

    return prox


def _shrunk(z: Array, by: Any) -> Array:
    return jnp.sign(z) * jnp.maximum(jnp.abs(z) - by, 0)


def _by_leaf(function: Callable[[Array, Any], Array], point: Params, prefix: PyTree) -> Params:
    """``function`` of each leaf and its part of a tree prefix, in the leaf's dtype."""

    def below(own: Any, part: Params) -> Params:
        return jax.tree.map(lambda leaf: function(leaf, own).astype(leaf.dtype), part)

    return jax.tree.map(below, prefix, point)
