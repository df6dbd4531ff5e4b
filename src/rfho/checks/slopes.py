"""Is the derivative of a scalar function right, one leaf at a time? Finite differences decide.

A leaf whose derivative is cut off (a stop_gradient, a custom_vjp, a rounding) is named by its path, where a
random direction through all leaves would only say that something is wrong.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._programs import trees as tree
from rfho.checks.finite_differences import (
    Difference,
    Verdict,
    derivative,
    rounding_of,
    settled,
)
from rfho.checks.line import Line, lines_through_leaves
from rfho.domains.space import Space
from rfho.typing import PyTree, Scalar

Point = dict[str, PyTree]
"""What a function is asked at, by name: ``state`` or ``params``, and ``hyper``."""


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
    function: Callable[[Point], Scalar], point: Point, claims: Point, *, space: Space, key: Array
) -> tuple[Slope, ...]:
    """One `Slope` for each leaf of ``point``.

    Args:
        function: a scalar function; an Equinox module keeps its compiled program.
        point: where; leaves are inexact arrays. What is empty or not finite is left out.
        claims: the derivative of ``function`` by them.
        space: where ``hyper`` may lie.
        key: for the directions.
    """
    rounding, seen = rounding_of(point), list[_Asked]()
    for name, part in point.items():
        for line in lines_through_leaves(space if name == "hyper" else None, part, key):
            velocity = line.velocity
            if _is_proper(velocity):
                claim = float(tree.dot(claims[name], velocity))
                along = _along(function, point, name, line)
                found = derivative(along, rounding, one_sided=line.one_sided)
                seen.append(_Asked(_path_of(velocity, name), claim, along, found, line.one_sided))
    scale = max((abs(asked.claim) for asked in seen), default=0.0)
    return tuple(_slope(asked, scale, rounding) for asked in seen)


class _Asked(NamedTuple):
    """A leaf, the derivative that is claimed, φ along a line, and what differences say at first."""

    path: str
    claim: float
    along: Callable[[float], float]
    found: Difference
    one_sided: bool


def _slope(asked: _Asked, scale: float, rounding: float) -> Slope:
    path, claim, along, found, edge = asked
    found, verdict = settled(along, claim, found, scale, rounding=rounding, one_sided=edge)
    return Slope(path, claim, found.value, found.error, verdict)


def _along(
    function: Callable[[Point], Scalar], point: Point, name: str, line: Line
) -> Callable[[float], float]:
    return lambda h: float(_value(function, point, name, line, jnp.asarray(h)))


@eqx.filter_jit
def _value(
    function: Callable[[Point], Scalar], point: Point, name: str, line: Line, step: Array
) -> Scalar:
    return function({**point, name: line.at(step)})


def _is_proper(direction: PyTree) -> bool:
    leaves = jax.tree.leaves(direction)
    return any(bool(jnp.any(leaf != 0)) for leaf in leaves) and all(
        bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves
    )


def _path_of(direction: PyTree, name: str) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(direction)
    return tree.path_of(next(path for path, leaf in leaves if jnp.any(leaf != 0)), name)
