"""Second derivatives of the inner loss that are not those of its gradient: see `rfho.check_hyper_gradient`."""

from collections.abc import Sequence

from jax import Array

from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.finite_differences import Verdict
from rfho.checks.second_order import SecondOrder, second_order
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper


def curvature_findings(
    problem: AbstractMoment, hyper: Hyper, key: Array, *, known: Sequence[Finding]
) -> list[Finding]:
    """One finding per leaf along which finite differences of the gradient disagree; `Descent` only.

    Leaves of which something is ``known`` already are left out.
    """
    told = {finding.where.leaf for finding in known}
    checked = [one for one in second_order(problem, hyper, key) if one.path not in told]
    return [_wrong(one) for one in checked if one.verdict is Verdict.DISAGREES]


def _wrong(one: SecondOrder) -> Finding:
    message = (
        f"the gradient of the inner loss changes with {one.path} otherwise than its own derivative says: "
        f"{one.by_derivative:.6g}, by finite differences {one.by_differences:.6g} ± {one.error:.1g}. Look for a "
        f"stop_gradient, a custom_vjp or a rounding between {one.path} and the loss"
    )
    return Finding(Kind.WRONG_SECOND_DERIVATIVE, Where(one.path, 0), message, Severity.ERROR)
