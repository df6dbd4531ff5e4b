"""Is the hypergradient the derivative of what training computes? The one question that no wrong rule evades.

    ⟨∇f(λ), d⟩    against    (f(λ + h d) - f(λ - h d)) / 2h,    h, h / 10, h / 100

A stop_gradient in the objective, a wrong vjp in a step: both modes apply the same wrong rule, and all their
numbers look well. The first four trainings are those that `smoothness` has asked for, so that two more are
enough; only where these do not agree is the question put with all care.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rfho.checks.diagnosis.base import Finding, Kind
from rfho.checks.diagnosis.case import Case, Near
from rfho.checks.diagnosis.parts import part_findings, second_findings, whole_finding
from rfho.checks.diagnosis.smoothness import distance
from rfho.checks.diagnosis.stops import stop_findings
from rfho.checks.finite_differences import Difference, Verdict, derivative, judged, settled
from rfho.typing import Hyper


class Whole(NamedTuple):
    """The derivative of a whole run along one direction.

    Attributes:
        claimed: ⟨∇f, d⟩.
        found: by finite differences.
        verdict: the one against the other.
    """

    claimed: float
    found: Difference
    verdict: Verdict


def whole_run(case: Case, near: Callable[[float], Near], hypergradient: Hyper) -> Whole:
    """Compares at the three steps that are cheap; if they do not agree, at all that may help.

    Args:
        case: under diagnosis.
        near: the run at λ(h).
        hypergradient: at λ, as a `Near` has it.
    """
    epsilon, edge = case.epsilon, case.line.one_sided
    products = jax.tree.map(lambda g, d: float(jnp.sum(g * d)), hypergradient, case.line.velocity)
    parts = jax.tree.leaves(products)
    value = lambda h: near(h).value  # noqa: E731

    claimed, scale, far = sum(parts), sum(map(abs, parts)), distance(epsilon)
    found = derivative(value, epsilon, far, one_sided=edge, shrinkings=2, shrink=10.0)
    verdict = judged(claimed, found, scale, rounding=epsilon)
    if verdict is not Verdict.AGREES:
        found = derivative(value, epsilon, one_sided=edge)
        found, verdict = settled(value, claimed, found, scale, rounding=epsilon, one_sided=edge)
    return Whole(claimed, found, verdict)


def whole_findings(
    case: Case, key: Array, *, whole: Callable[[], Whole], known: Sequence[Finding]
) -> list[Finding]:
    """The part that is wrong if the whole is; nothing where a reason is ``known``.

    What cannot be decided of the whole, as in single precision, is asked of the inner loss alone.
    """
    kinds = {finding.kind for finding in known}
    if kinds & {Kind.CHAOS, Kind.KINK, Kind.ROUGH, Kind.STOPPED}:
        return []
    run = whole()
    if run.verdict is Verdict.AGREES:
        return []
    undecided = run.verdict is Verdict.UNDECIDED
    told = {finding.where.leaf for finding in known}
    look = second_findings if undecided else part_findings
    found = [part for part in look(case, key) if part.where.leaf not in told]
    if found or undecided or Kind.EXPLOSION in kinds:
        return found
    return stop_findings(case, case.problem.horizon) or [whole_finding(run.claimed, run.found)]
