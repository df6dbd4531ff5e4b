"""Is the derivative of a scalar function right, one leaf at a time? Finite differences decide.

A leaf whose derivative is cut off (a stop_gradient, a custom_vjp, a rounding) is named by its path, where a
random direction through all leaves would only say that something is wrong.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho.checks.finite_differences import (
    Verdict,
    balanced_direction,
    derivative,
    judged,
    rounding_of,
)
from rfho.typing import PyTree, Scalar


class Slope(NamedTuple):
    """The derivative of a function along a random direction of one leaf.

    Attributes:
        path: the leaf, as ``params["w"]`` or ``hyper["l2"]``.
        by_derivative: as it is claimed.
        by_differences: by finite differences.
        error: the error bar of ``by_differences``.
        verdict: the one against the other.
    """

    path: str
    by_derivative: float
    by_differences: float
    error: float
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"{self.by_derivative:.6g} along {self.path}, by finite differences {self.by_differences:.6g} "
            f"± {self.error:.1g}"
        )


def slopes_of(
    function: Callable[[PyTree], Scalar], point: dict[str, PyTree], claims: PyTree, *, key: Array
) -> tuple[Slope, ...]:
    """One `Slope` for each leaf of ``point``.

    Args:
        function: of trees like ``point``; an Equinox module keeps its compiled program.
        point: where, by name; leaves are inexact arrays. What is empty or not finite is left out.
        claims: the derivative of ``function``, in the structure of ``point``.
        key: for the directions.
    """
    directions = [u for u in _one_leaf_each(balanced_direction(point, key)) if _is_proper(u)]
    claimed = [float(tree.dot(claims, u)) for u in directions]
    rounding, scale = rounding_of(point), max(map(abs, claimed), default=0.0)

    def slope(u: PyTree, claim: float) -> Slope:
        along = lambda h: float(_value(function, point, u, jnp.asarray(h)))  # noqa: E731
        found = derivative(along, rounding)
        verdict = judged(claim, found, scale, rounding=rounding)
        return Slope(_path_of(u), claim, found.value, found.error, verdict)

    return tuple(map(slope, directions, claimed))


@eqx.filter_jit
def _value(function: Callable[[PyTree], Scalar], point: PyTree, u: PyTree, step: Array) -> Scalar:
    return function(jax.tree.map(lambda x, d: x + step.astype(d.dtype) * d, point, u))


def _one_leaf_each(direction: PyTree) -> list[PyTree]:
    """The direction's parts, each zero but for one leaf."""
    leaves, structure = jax.tree.flatten(direction)
    return [
        jax.tree.unflatten(
            structure, [leaf if i == j else jnp.zeros_like(leaf) for j, leaf in enumerate(leaves)]
        )
        for i in range(len(leaves))
    ]


def _is_proper(direction: PyTree) -> bool:
    leaves = jax.tree.leaves(direction)
    return any(bool(jnp.any(leaf != 0)) for leaf in leaves) and all(
        bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves
    )


def _path_of(direction: Any) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(direction)
    path = next(path for path, leaf in leaves if jnp.any(leaf != 0))
    return tree.path_of(path[1:], path[0].key)
