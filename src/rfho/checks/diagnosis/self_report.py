"""What the method itself knows about its estimate, and how far that is from the hypergradient of the run."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.errors import HyperGradientError, Result
from rfho.hyper_gradients import AbstractHyperGradient, Estimate, TruncatedHyperGradient
from rfho.hyper_gradients.once import estimate_once
from rfho.memory import AbstractCheckpoint
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper

_ERROR = 0.1  # of the hypergradient's norm
_SCATTER = 4  # standard errors within which what is random is not wrong

_KINDS = {Result.NOT_RETURNED: Kind.NOT_REVERSED, Result.INACCURATE: Kind.UNCONVERGED}


def claim_findings(
    problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient, *, exact: Hyper | None
) -> list[Finding]:
    """The method's complaint, its own estimate of its error, and its bias.

    Args:
        problem: under diagnosis.
        hyper: λ.
        method: whose estimate is asked for.
        exact: the hypergradient by plain reverse mode; None where that is not to be had.
    """
    estimate = estimate_once(problem, hyper, method)
    stats = {name: float(np.max(number)) for name, number in estimate.aux.stats.items()}
    complaint = method.complaint(stats)
    if complaint is not None:
        return [_refused(complaint)]
    bad = tree.first_non_finite(estimate.hypergradient, "hyper")
    if bad is not None:
        return [] if exact is None else [_not_finite(method, bad)]
    if exact is not None and method.reach(problem) < problem.horizon:
        return _truncation(problem, hyper, method, exact=exact)
    if exact is not None and method.trains_anew:
        return _difference(method, estimate, stats, exact=exact)
    declared = declared_error(stats, estimate.hypergradient)
    return [_declared(stats, declared)] if declared is not None and declared > _ERROR else []


def declared_error(stats: dict[str, float], hypergradient: Hyper) -> float | None:
    """The relative error that a method states of its own estimate, see `rfho.hyper_gradients.Aux`; None if none."""
    size = float(tree.norm(hypergradient))
    for name in ("error", "standard_error", "error_bound"):
        relative = stats.get(f"relative_{name}", math.inf)
        absolute = stats.get(name, math.inf) / size if size > 0 else math.inf
        if math.isfinite(min(relative, absolute)):
            return min(relative, absolute)
    return None


def _refused(complaint: HyperGradientError) -> Finding:
    kind = _KINDS.get(complaint.result, Kind.REFUSED)
    message = f"{complaint.result.value}: {complaint}"
    return Finding(kind, Where(), message, Severity.ERROR)


def _not_finite(method: AbstractHyperGradient, path: str) -> Finding:
    name, where = type(method).__name__, Where(leaf=path)
    is_policy = lambda node: isinstance(node, AbstractCheckpoint)  # noqa: E731
    policies = [node for node in jax.tree.leaves(method, is_leaf=is_policy) if is_policy(node)]
    undoing = [type(policy).__name__ for policy in policies if policy.undoes_steps]
    if undoing:
        message = (
            f"the hypergradient of {path} is NaN while stored states give a finite one: steps that {undoing[0]} "
            "undid in floats did not lead back to an anchor within its tolerance. Choose a smaller every, a "
            "larger momentum, or rfho.Recompute()"
        )
        return Finding(Kind.NOT_REVERSED, where, message, Severity.ERROR)
    message = (
        f"{name} gives a hypergradient of {path} that is not finite, while plain reverse mode gives a finite one: "
        "take ReverseHyperGradient"
    )
    return Finding(Kind.REFUSED, where, message, Severity.ERROR)


def _declared(stats: dict[str, float], error: float) -> Finding:
    told = f"by the method's own estimate the hypergradient is {100 * error:.0f} % wrong"
    if "stationarity" not in stats:
        message = f"{told}: give it more of what it takes, or take ReverseHyperGradient"
        return Finding(Kind.INEXACT, Where(), message, Severity.WARNING)
    message = (
        f"{told} (gradient of the condition {stats['stationarity']:.2g}, relative residual of the solve "
        f"{stats.get('residual', math.nan):.2g}): it may even have the wrong sign. Train longer, or take "
        "ReverseHyperGradient"
    )
    return Finding(Kind.UNCONVERGED, Where(), message, Severity.WARNING)


def _truncation(
    problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient, *, exact: Hyper
) -> list[Finding]:
    window = method.reach(problem)
    short = estimate_once(problem, hyper, TruncatedHyperGradient(window)).hypergradient
    missing, leaf = _gap(exact, short)
    if missing <= _ERROR:
        return []
    message = (
        f"the window of {window} steps is too short: {100 * missing:.0f} % of the hypergradient are missing, most "
        f"of it in {leaf}. Double it until this falls below {100 * _ERROR:.0f} %, or take ReverseHyperGradient "
        "with rfho.Recompute()"
    )
    where = Where(leaf, problem.horizon - window)
    return [Finding(Kind.TRUNCATION_BIAS, where, message, Severity.WARNING)]


def _difference(
    method: AbstractHyperGradient, estimate: Estimate, stats: dict[str, float], *, exact: Hyper
) -> list[Finding]:
    gap, leaf = _gap(exact, estimate.hypergradient)
    if gap <= _ERROR:
        return []
    name, declared = type(method).__name__, declared_error(stats, exact)
    known = "" if declared is None else f", {100 * declared:.0f} % by its own account"
    message = (
        f"the estimate of {name} is {100 * gap:.0f} % off the hypergradient of the same run{known}, most in {leaf}: "
        "give it more of what it takes, or take ReverseHyperGradient"
    )
    scatters = gap * float(tree.norm(exact)) <= _SCATTER * stats.get("standard_error", 0.0)
    return [
        Finding(Kind.INEXACT, Where(leaf), message, Severity.NOTE if scatters else Severity.WARNING)
    ]


def _gap(exact: Hyper, other: Hyper) -> tuple[float, str]:
    """The norm of the difference by that of ``exact``, and the leaf in which it is largest."""
    difference = tree.subtract(exact, other)
    sizes = jax.tree.map(lambda leaf: float(jnp.linalg.norm(jnp.ravel(leaf))), difference)
    path, _ = max(jax.tree_util.tree_leaves_with_path(sizes), key=lambda pair: pair[1])
    size = float(tree.norm(exact))
    return float(tree.norm(difference)) / size if size > 0 else 0.0, tree.path_of(path, "hyper")
