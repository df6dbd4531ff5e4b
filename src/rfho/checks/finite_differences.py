"""A derivative by finite differences that brings its own error bar (Ridders, Adv. Eng. Software 4(2), 1982).

    D(h) = (φ(h) - φ(-h)) / 2h = φ'(0) + c_2 h² + c_4 h⁴ + …
    D(h) = (φ(h) - φ(0)) / h   = φ'(0) + c_1 h + c_2 h² + …        at the edge of where φ is defined

is taken at h, h/c, h/c², … and neighbours are combined so that the powers of h vanish one by one. How
far a combination still moves is the truncation part of its error, the rounding of φ divided by h the
other part; the combination of three or more with the smallest sum wins. No step that is fixed
beforehand can do this: it is too long for one function and too short for the next.
"""

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfho.typing import PyTree

SHRINK = 1.9
"""No simple fraction: the steps of a staircase would be hit alike at every h."""


class Difference(NamedTuple):
    """A derivative and how far it may be off; floats, or arrays in the shape of φ.

    Attributes:
        value: φ'(0); NaN where φ was not finite at any step.
        error: its error bar, an estimate and no bound; infinite where there is no value.
        size: the largest ``|φ|`` that was seen.
    """

    value: Any
    error: Any
    size: Any


class Verdict(enum.Enum):
    """What finite differences say of a derivative."""

    AGREES = "agrees with finite differences"
    DISAGREES = "disagrees with finite differences"
    UNDECIDED = "finite differences are too coarse to decide"


def ladder(step: float = 0.1, *, shrinkings: int = 17, shrink: float = SHRINK) -> list[float]:
    """The lengths h that `derivative` takes, longest first; for whoever computes φ at all of them at once."""
    return [step / shrink**shrunk for shrunk in range(shrinkings + 1)]


def derivative(
    function: Callable[[float], Any],
    rounding: float,
    step: float = 0.1,
    *,
    one_sided: bool = False,
    shrinkings: int = 17,
    shrink: float = SHRINK,
    enough: float = 1e-9,
) -> Difference:
    """φ'(0) by Ridders' shrinking step, element by element where φ is an array.

    Args:
        function: φ, from the signed step to a float or an array of them. Where it is not finite the
            step shrinks on.
        rounding: the relative rounding of φ, the machine epsilon of its dtype.
        step: the first and longest h.
        one_sided: whether φ is defined for h >= 0 alone.
        shrinkings: how often h is made smaller at most; each costs two values of φ, or one.
        shrink: the factor by which it is made smaller.
        enough: stop as soon as the error is below this part of the value.

    Returns:
        A `Difference`.

    Example:
        >>> import math
        >>> from rfho.checks import derivative
        >>> value, error, _ = derivative(math.sin, rounding=2e-16)
        >>> bool(abs(value - 1) < error < 1e-9)
        True
    """
    at_rest, row = np.asarray(function(0.0) if one_sided else 0.0), list[Any]()
    best = Difference(np.asarray(math.nan), np.asarray(math.inf), np.asarray(0.0))
    reach = shrink if one_sided else shrink**2
    for h in ladder(step, shrinkings=shrinkings, shrink=shrink):
        up, down = np.asarray(function(h)), at_rest if one_sided else np.asarray(function(-h))
        if not (np.isfinite(up).all() and np.isfinite(down).all()):
            row = []
            continue
        size, width = np.maximum(abs(up), abs(down)), h if one_sided else 2 * h
        row, older = _extrapolated((up - down) / width, row, reach=reach), row
        for order in range(2, len(row)):
            moved = np.maximum(abs(row[order] - row[order - 1]), abs(row[order] - older[order - 1]))
            best = _better(best, Difference(row[order], moved + rounding * size / h, size))
        if np.all(best.error <= enough * abs(best.value)):
            break
    return Difference(*(number.item() if np.ndim(number) == 0 else number for number in best))


def noise_of(
    function: Callable[[float], Any], rounding: float, *, one_sided: bool = False
) -> float:
    """The relative noise of a scalar φ, at least ``rounding`` (Moré, Wild, SIAM J. Sci. Comput. 33(3), 2011).

        σ_k² = mean (Δ^k φ)² / C(2k, k),    k = 3, …, 6, of nine values a hair's breadth apart

    Rounding alone makes little of it; a step that divides rounding by its own size, as Adam does where a gradient is
    zero but for rounding, makes much. No error bar that is built on ``rounding`` knows of it.

    Args:
        function: φ, as in `derivative`.
        rounding: the relative rounding of numbers like φ.
        one_sided: whether φ is defined for h >= 0 alone.
    """
    first = 0 if one_sided else -4
    values = np.asarray([function(i * rounding ** (2 / 3)) for i in range(first, first + 9)])
    size = np.max(abs(values))
    if not 0 < size < math.inf:
        return rounding
    orders = range(3, 7)
    squares = [np.mean(np.diff(values, k) ** 2) / math.comb(2 * k, k) for k in orders]
    return max(rounding, float(max(squares) ** 0.5 / size))


def _extrapolated(difference: Any, older: list[Any], *, reach: float) -> list[Any]:
    # Neville's scheme in h or h², which shrinks by `reach`: the entry of order j is free of the first j powers.
    row = [difference]
    for order, previous in enumerate(older, start=1):
        row.append(row[-1] + (row[-1] - previous) / (reach**order - 1))
    return row


def _better(one: Difference, other: Difference) -> Difference:
    nearer = other.error < one.error
    return Difference(
        np.where(nearer, other.value, one.value),
        np.where(nearer, other.error, one.error),
        np.where(nearer, np.maximum(one.size, other.size), one.size),
    )


def judged(claimed: float, found: Difference, scale: float, *, rounding: float) -> Verdict:
    """Whether a claimed derivative is the one that finite differences found.

    Args:
        claimed: by whatever is under test.
        found: by `derivative`, of a scalar function.
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


def settled(
    function: Callable[[float], Any],
    claimed: float,
    found: Difference,
    scale: float,
    *,
    rounding: float,
    one_sided: bool = False,
) -> tuple[Difference, Verdict]:
    """As `judged`, and before it denies, found once more with the noise that φ has: see `noise_of`."""
    verdict = judged(claimed, found, scale, rounding=rounding)
    if verdict is not Verdict.DISAGREES or not math.isfinite(claimed):
        return found, verdict
    noise = noise_of(function, rounding, one_sided=one_sided)
    if noise == rounding:
        return found, verdict
    found = derivative(function, noise, one_sided=one_sided)
    return found, judged(claimed, found, scale, rounding=rounding)


def rounding_of(values: PyTree) -> float:
    """The machine epsilon of the coarsest inexact leaf; leaves may be abstract."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(values) if hasattr(leaf, "dtype")]
    return max(float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.inexact))
