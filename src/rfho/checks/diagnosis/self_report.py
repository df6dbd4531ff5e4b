"""What the method itself knows about its estimate, and what a second estimate says about the first."""

import jax
import jax.numpy as jnp
import numpy as np

from rfho import _tree as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.errors import HyperGradientError, Result
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    OnlineTruncatedHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)
from rfho.hyper_gradients.once import estimate_once
from rfho.memory import Anchored
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper

_BIAS = 0.1
_ERROR = 0.1

_KINDS = {Result.NOT_RETURNED: Kind.NOT_REVERSED, Result.INACCURATE: Kind.UNCONVERGED}


def claim_findings(
    problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient, *, sound: bool
) -> list[Finding]:
    """The method's complaint, its own estimate of the error, its bias, its failure to run backwards.

    Args:
        problem: under diagnosis.
        hyper: λ.
        method: whose estimate is asked for.
        sound: whether plain reverse mode gives a finite hypergradient.
    """
    estimate = estimate_once(problem, hyper, method)
    stats = {name: float(np.max(number)) for name, number in estimate.aux.stats.items()}
    complaint = method.complaint(stats)
    if complaint is not None:
        return [_refused(complaint)]
    if stats.get("relative_error", 0.0) > _ERROR:
        return [_unconverged(stats)]
    bad = tree.first_non_finite(estimate.hypergradient, "hyper")
    if bad is not None and sound:
        return [_not_sound(method, bad)]
    if isinstance(method, TruncatedHyperGradient | OnlineTruncatedHyperGradient):
        return _truncation(problem, hyper, method)
    return []


def _refused(complaint: HyperGradientError) -> Finding:
    kind = _KINDS.get(complaint.result, Kind.REFUSED)
    message = f"{complaint.result.value}: {complaint}"
    return Finding(kind, Where(), message, Severity.ERROR)


def _unconverged(stats: dict[str, float]) -> Finding:
    message = (
        f"by the method's own estimate the hypergradient is {100 * stats['relative_error']:.0f} % wrong (gradient "
        f"of the condition {stats.get('stationarity', float('nan')):.2g}, relative residual of the solve "
        f"{stats.get('residual', float('nan')):.2g}): it may even have the wrong sign. Train longer, or take "
        "ReverseHyperGradient"
    )
    return Finding(Kind.UNCONVERGED, Where(), message, Severity.WARNING)


def _not_sound(method: AbstractHyperGradient, path: str) -> Finding:
    undone = isinstance(method, ReverseHyperGradient) and isinstance(method.checkpoint, Anchored)
    if undone:
        message = (
            f"the hypergradient of {path} is NaN while stored states give a finite one: steps that Anchored undid "
            "in floats did not lead back to an anchor within its tolerance. Choose a smaller every, a larger "
            "momentum, or rfho.Recompute()"
        )
        return Finding(Kind.NOT_REVERSED, Where(leaf=path), message, Severity.ERROR)
    message = (
        f"{type(method).__name__} gives a hypergradient of {path} that is not finite, while plain reverse mode "
        "gives a finite one: take ReverseHyperGradient"
    )
    return Finding(Kind.REFUSED, Where(leaf=path), message, Severity.ERROR)


def _truncation(
    problem: AbstractMoment,
    hyper: Hyper,
    method: TruncatedHyperGradient | OnlineTruncatedHyperGradient,
) -> list[Finding]:
    window = method.window
    if window >= problem.horizon:
        return []
    short, long = (
        estimate_once(problem, hyper, TruncatedHyperGradient(k, method.checkpoint)).hypergradient
        for k in (window, 2 * window)
    )
    change, size = tree.norm(tree.subtract(long, short)), tree.norm(long)
    if change <= _BIAS * size:
        return []
    gap = float(change / size)
    leaf = _most_biased(long, short)
    message = (
        f"the window of {window} steps is too short: twice the window changes the hypergradient by "
        f"{100 * gap:.0f} %, most in {leaf}, so that at least so much is missing. Double it until this falls "
        f"below {100 * _BIAS:.0f} %, or take ReverseHyperGradient with rfho.Recompute()"
    )
    where = Where(leaf, max(0, problem.horizon - window))
    return [Finding(Kind.TRUNCATION_BIAS, where, message, Severity.WARNING)]


def _most_biased(long: Hyper, short: Hyper) -> str:
    gaps = jax.tree.map(lambda a, b: float(jnp.linalg.norm(jnp.ravel(a - b))), long, short)
    path, _ = max(jax.tree_util.tree_leaves_with_path(gaps), key=lambda pair: pair[1])
    return tree.path_of(path, "hyper")
