"""A derivative by finite differences that brings its own error bar (Ridders, Adv. Eng. Software 4(2), 1982).

    D(h) = (φ(h) - φ(-h)) / 2h = φ'(0) + c_2 h² + c_4 h⁴ + …

is taken at h, h/c, h/c², … and neighbours are combined so that the even powers vanish one by one. How
far a combination still moves is the truncation part of its error, the rounding of φ divided by h the
other part; the combination of three or more with the smallest sum wins. No step that is fixed
beforehand can do this: it is too long for one function and too short for the next.
"""

import enum
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho.typing import PyTree

# No simple fraction: the steps of a staircase would be hit alike at every h.
_SHRINK = 1.9


class Difference(NamedTuple):
    """A derivative and how far it may be off.

    Attributes:
        value: φ'(0); NaN where φ was not finite at any step.
        error: its error bar, an estimate and no bound; infinite where there is no value.
        size: the largest |φ| that was seen.
    """

    value: float
    error: float
    size: float


class Verdict(enum.Enum):
    """What finite differences say of a derivative."""

    AGREES = "agrees with finite differences"
    DISAGREES = "disagrees with finite differences"
    UNDECIDED = "finite differences are too coarse to decide"


def derivative(
    function: Callable[[float], float],
    rounding: float,
    step: float = 0.1,
    *,
    shrinkings: int = 17,
    enough: float = 1e-9,
) -> Difference:
    """φ'(0) by Ridders' shrinking step.

    Args:
        function: φ, from the signed step to a float. Where it is not finite the step shrinks on.
        rounding: the relative rounding of φ, the machine epsilon of its dtype.
        step: the first and longest h.
        shrinkings: how often h is made smaller at most; each costs two values of φ.
        enough: stop as soon as the error is below this part of the value.

    Returns:
        A `Difference`.

    Example:
        >>> import math
        >>> from rfho.checks.finite_differences import derivative
        >>> value, error, _ = derivative(math.sin, rounding=2e-16)
        >>> abs(value - 1) < error < 1e-9
        True
    """
    best, row = Difference(math.nan, math.inf, 0.0), list[float]()
    for shrunk in range(shrinkings + 1):
        h = step / _SHRINK**shrunk
        up, down = function(h), function(-h)
        if not (math.isfinite(up) and math.isfinite(down)):
            row = []
            continue
        size = max(abs(up), abs(down))
        row, older = _extrapolated((up - down) / (2 * h), row), row
        for order in range(2, len(row)):
            moved = max(abs(row[order] - row[order - 1]), abs(row[order] - older[order - 1]))
            error = moved + rounding * size / h
            if error < best.error:
                best = Difference(row[order], error, max(size, best.size))
        if best.error <= enough * abs(best.value):
            break
    return best


def _extrapolated(difference: float, older: list[float]) -> list[float]:
    # Neville's scheme in h²: the entry of order j is free of the powers h², …, h^2j.
    row = [difference]
    for order, previous in enumerate(older, start=1):
        row.append(row[-1] + (row[-1] - previous) / (_SHRINK ** (2 * order) - 1))
    return row


def judged(claimed: float, found: Difference, scale: float, *, rounding: float) -> Verdict:
    """Whether a claimed derivative is the one that finite differences found.

    Args:
        claimed: by whatever is under test.
        found: by `derivative`.
        scale: how large the derivative would be if its parts did not cancel.
        rounding: as in `derivative`.

    Returns:
        A `Verdict`. Ten error bars are allowed, and 10 √rounding of the scale; an error bar above
        1 % of the scale decides nothing; what is below rounding^⅔ of the function counts as zero.
    """
    if not math.isfinite(claimed):
        return Verdict.DISAGREES
    if not math.isfinite(found.error):
        return Verdict.UNDECIDED
    scale = max(scale, abs(found.value))
    nothing = rounding ** (2 / 3) * found.size
    if abs(claimed - found.value) > 10 * (found.error + math.sqrt(rounding) * scale) + nothing:
        return Verdict.DISAGREES
    return Verdict.UNDECIDED if found.error > 0.01 * scale + nothing else Verdict.AGREES


def random_direction(point: PyTree, key: Array) -> PyTree:
    """A random direction in which leaves count alike, whatever their magnitude and size.

    A unit vector per leaf, times the leaf's norm (1 for a zero leaf), times a coordinate of a unit
    vector over the leaves: a step of 0.1 changes no leaf by more than a tenth.
    """
    leaves, structure = jax.tree.flatten(point)
    for_shares, *keys = jax.random.split(key, len(leaves) + 1)
    shares = jax.random.normal(for_shares, (len(leaves),))
    parts = map(_scaled_normal, leaves, keys, shares / jnp.linalg.norm(shares))
    return jax.tree.unflatten(structure, list(parts))


def rounding_of(values: PyTree) -> float:
    """The machine epsilon of the coarsest inexact leaf."""
    leaves = jax.tree.leaves(tree.inexact(values))
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)


def _scaled_normal(leaf: Array, key: Array, share: Array) -> Array:
    drawn = jax.random.normal(key, leaf.shape, leaf.dtype)
    norm = jnp.linalg.norm(leaf.ravel())
    length = share.astype(leaf.dtype) * jnp.where(norm > 0, norm, 1)
    return drawn * (length / jnp.linalg.norm(drawn.ravel()))
