"""How far rounding has moved a hypergradient: measured against a second evaluation that rounds less.

    ‖g - ∇f‖ ≤ ‖g - h‖ + ‖h - ∇f‖ ≤ 2 ‖g - h‖

for h in more digits than g, as long as h is itself no further from ∇f than g is from h.
"""

import warnings
from typing import NamedTuple

import jax
import numpy as np

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, HyperGradientWarning, Kind, Where
from rfho.hyper_gradients import AbstractHyperGradient, hyper_gradient
from rfho.problem import Problem
from rfho.typing import Hyper

_FACTOR = 2.0


class Rounding(NamedTuple):
    """What rounding has done to a hypergradient.

    Attributes:
        hypergradient: g, as it is rounded.
        finer: h, in more digits.
        error: 2 ‖g - h‖, at least as large as ‖g - ∇f‖.
        relative: the same by ‖h‖.
        in_doubt: paths of the leaves in which an entry may have the wrong sign: it is at most twice as
            large as its difference.
    """

    hypergradient: Hyper
    finer: Hyper
    error: float
    relative: float
    in_doubt: tuple[str, ...]


def rounding(
    problem: Problem,
    hyper: Hyper,
    method: AbstractHyperGradient,
    *,
    finer: tuple[Problem, AbstractHyperGradient],
) -> Rounding:
    """How far rounding moves the hypergradient of ``problem`` by ``method``, and whether signs are in doubt.

    The error covers the true one, against float64, as long as the finer evaluation is no further from it than
    the rounded one is from the finer; `tests/test_rounding.py` holds it to that on 200 random problems, with
    products in bfloat16 and with a tape in 16 bits, both against float32.

    Args:
        problem: as it is trained, in half precision somewhere.
        hyper: λ, in float32 or float64.
        method: as it is used, with a tape in 16 bits, say.
        finer: the same problem and a method in more digits: the loss without its cast, the tape as it is. Under
            `rfho.Recompute` it needs little memory. For a long horizon both may be of its first steps alone.

    Returns:
        A `Rounding`.

    Warns:
        HyperGradientWarning: the sign of an entry is in doubt; the message names its leaf.

    Cost:
        Two hypergradients.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> from rfho.hyper_gradients import ReverseHyperGradient
        >>> loss = lambda w, hyper, batch: jnp.sum((jnp.sin(w) - 1) ** 2)
        >>> dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(3) / 3)
        >>> problem = rfho.Problem(dynamics, loss, horizon=10)
        >>> half = rfho.StoreAll(encoding=rfho.memory.HalfPrecision())
        >>> whole = ReverseHyperGradient(rfho.Recompute())
        >>> found = rfho.checks.rounding(
        ...     problem, {"lr": 0.1}, ReverseHyperGradient(half), finer=(problem, whole)
        ... )
        >>> 0 < found.relative < 0.01, found.in_doubt
        (True, ())
    """
    coarse = jax.device_get(hyper_gradient(problem, hyper, method).hypergradient)
    again, by = finer
    fine = jax.device_get(hyper_gradient(again, hyper, by).hypergradient)
    gaps = jax.tree.map(lambda g, h: np.abs(np.asarray(g, np.float64) - h), coarse, fine)
    in_doubt = tuple(
        tree.path_of(path, "hyper")
        for (path, g), gap in zip(
            jax.tree_util.tree_leaves_with_path(coarse), jax.tree.leaves(gaps), strict=True
        )
        if np.any((np.abs(g) <= _FACTOR * gap) & (gap > 0))
    )
    if in_doubt:
        message = (
            f"rounding may have turned the sign of the hypergradient of {', '.join(in_doubt)}: compute in more "
            "digits, or do not learn it"
        )
        finding = Finding(Kind.LOW_PRECISION, Where(leaf=in_doubt[0]), message)
        warnings.warn(HyperGradientWarning(finding), stacklevel=2)
    error = _FACTOR * _norm(gaps)
    size = _norm(fine)
    return Rounding(coarse, fine, error, error / size if size else 0.0, in_doubt)


def _norm(leaves: Hyper) -> float:
    squares = [np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(leaves)]
    return float(np.sqrt(sum(squares)))
