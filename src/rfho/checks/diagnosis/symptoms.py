"""What an outer loop can tell of itself without further runs: from the numbers it has anyway.

A warning is given where there is little doubt: the adjoint grew by more than 1/ε on its way back, an
estimate is in half precision, a hypergradient has been exactly zero from the start, the outer loop
jumps to and fro, which shows in g_k · g_{k-1} < 0 again and again without any progress, or f falls over
twenty steps, each of the last five below each of the first five, while on held-out data all five are above.
"""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, HyperGradientWarning, Kind, Where
from rfho.checks.diagnosis.idle import zero_leaves
from rfho.checks.diagnosis.precision import half_precision_leaves
from rfho.hyper_gradients.precision import in_doubt
from rfho.memory.shards import on_device
from rfho.typing import Hyper, PyTree

_UNTIL = 3  # outer steps after which an exact zero is no accident
_WINDOW = 20  # outer steps over which jumps are counted
_ENDS = 5  # steps at both ends of that window, all of which have to tell the same
_JUMPS = (
    19  # negative products among them that are a warning: of pure noise, in one window of 50,000
)

HELD_OUT = "held_out"
"""Among the scalars of a step: the objective on data that nobody descends, where there are any."""

REMEMBERED = _WINDOW + 1
"""How many outer steps `symptoms` looks back."""


class Seen(NamedTuple):
    """One outer step as `symptoms` sees it, on the host.

    Attributes:
        value: f.
        hypergradient: g.
        stats: the method's scalars.
    """

    value: PyTree
    hypergradient: Hyper
    stats: dict[str, float]


def symptoms(past: Sequence[Seen], params: Any, k: int) -> list[Finding]:
    """What the outer steps up to k = 1, 2, … show.

    Args:
        past: these steps, oldest first; the last `REMEMBERED` will do.
        params: of the last estimate; only dtypes are looked at.
        k: the number of the last step.
    """
    last = past[-1]
    found = _explosion(last, k) if k == 1 or not _finite(last) else []
    if k == 1:
        found += _half_precision(params)
    if k == _UNTIL:
        found += _zeros(past)
    return found + _rounded(last, k) + _jumps(past) + _fitted(past, k)


class Watch(NamedTuple):
    """What one outer loop remembers of itself, so that each kind of symptom is shown once.

    Attributes:
        past: the last steps, oldest first.
        told: what has been shown.
    """

    past: tuple[Seen, ...] = ()
    told: frozenset[Kind] = frozenset()

    def look(
        self, seen: Seen, params: Any, k: int, moves: Sequence[Finding] = ()
    ) -> tuple[list[Finding], "Watch"]:
        """What outer step k = 1, 2, … shows that was not shown before, and the watch after it."""
        past = (*self.past, seen)[-REMEMBERED:]
        fresh = [f for f in (*symptoms(past, params, k), *moves) if f.kind not in self.told]
        return fresh, Watch(past, self.told | {finding.kind for finding in fresh})


def warn(findings: Sequence[Finding]) -> None:
    """One `HyperGradientWarning` for each finding."""
    for finding in findings:
        warnings.warn(HyperGradientWarning(finding), stacklevel=4)


def _explosion(last: Seen, k: int) -> list[Finding]:
    seed, adjoint = last.stats.get("seed_norm", 0.0), last.stats.get("adjoint_norm", 0.0)
    epsilon = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(last.hypergradient))
    if not 0 < seed < np.inf or not adjoint > seed / epsilon:
        return []
    message = (
        f"at outer step {k} the adjoint grew from {seed:.3g} to {adjoint:.3g} on its way back, by more than 1/ε: "
        "the learning rate is above 2/L or training is chaotic. Lower the rate or shorten the horizon; "
        "rfho.diagnose names the step and says which of both it is"
    )
    return [Finding(Kind.EXPLOSION, Where(step=k), message)]


def _half_precision(params: Any) -> list[Finding]:
    leaves = half_precision_leaves(params, "params")
    if not leaves:
        return []
    path, dtype = leaves[0]
    message = (
        f"{path} has dtype {dtype}, in which hypergradients drown: keep parameters in float32 or float64 and "
        "cast inside the loss alone"
    )
    return [Finding(Kind.LOW_PRECISION, Where(leaf=path), message)]


def _rounded(last: Seen, k: int) -> list[Finding]:
    doubt = in_doubt(last.stats, last.hypergradient)
    if doubt is None:
        return []
    return [Finding(Kind.LOW_PRECISION, Where(step=k), f"at outer step {k} {doubt}")]


def _zeros(past: Sequence[Seen]) -> list[Finding]:
    always = set.intersection(*(set(zero_leaves(seen.hypergradient)) for seen in past))
    return [
        Finding(
            Kind.ZERO_GRADIENT,
            Where(leaf=path, step=len(past)),
            f"the hypergradient of {path} was exactly zero in the first {len(past)} outer steps: it does not "
            "move. A clip or a relu stands on its flat side, or the method does not reach the step that uses "
            "it; start elsewhere, or mark it rfho.Fixed()",
        )
        for path in sorted(always)
    ]


def _jumps(past: Sequence[Seen]) -> list[Finding]:
    recent = list(past)[-REMEMBERED:]
    if len(recent) < REMEMBERED or not all(map(_finite, recent)):
        return []
    products = [
        _dot(one.hypergradient, other.hypergradient) for one, other in itertools.pairwise(recent)
    ]
    flips = sum(product < 0 for product in products)
    values = [sum(map(float, jax.tree.leaves(seen.value))) for seen in recent]
    if flips < _JUMPS or min(values[len(values) // 2 :]) < min(values[: len(values) // 2]):
        return []
    message = (
        f"in {flips} of the last {_WINDOW} outer steps the hypergradient turned round, and the objective has not "
        f"improved: {values[0]:.4g}, now {values[-1]:.4g}. The outer step is too large: lower the rate of the "
        "outer optimiser, for one leaf with optax.partition"
    )
    return [Finding(Kind.OUTER_STEP_TOO_LARGE, Where(), message)]


def _fitted(past: Sequence[Seen], k: int) -> list[Finding]:
    recent = list(past)[-REMEMBERED:]
    if len(recent) < REMEMBERED or any(HELD_OUT not in seen.stats for seen in recent):
        return []
    values = [sum(map(float, jax.tree.leaves(seen.value))) for seen in recent]
    fresh = [seen.stats[HELD_OUT] for seen in recent]
    falls = max(values[-_ENDS:]) < min(values[:_ENDS])
    if not (falls and min(fresh[-_ENDS:]) > max(fresh[:_ENDS])):
        return []
    message = (
        f"over the {_WINDOW} outer steps up to {k} the objective fell from {values[0]:.4g} to {values[-1]:.4g}, and "
        f"on held-out data it rose from {fresh[0]:.4g} to {fresh[-1]:.4g}: the hyperparameters fit the validation "
        "data. Take solution.best, stop here, use more validation data or folds (rfho.over_tasks), draw it fresh "
        "(rfho.Fresh), or have fewer hyperparameters"
    )
    return [Finding(Kind.VALIDATION_FITTED, Where(step=k), message)]


def _dot(one: Hyper, other: Hyper) -> float:
    """On the host, where it is: no program for it, unless both lie over several processes."""
    pairs = zip(*map(jax.tree.leaves, on_device((one, other))), strict=True)
    # Of a run that diverges more is said elsewhere.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(sum((a * b).sum().real for a, b in pairs))


def _finite(seen: Seen) -> bool:
    return tree.first_non_finite((seen.value, seen.hypergradient), "seen") is None
