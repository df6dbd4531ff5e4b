"""One question, "can this hypergradient be trusted?", put to everything that can be looked at."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rfho._programs import trees as tree
from rfho.checks.attempt import NoDerivative, attempted
from rfho.checks.diagnosis.base import Finding, Kind, Severity
from rfho.checks.diagnosis.case import Case, no_way_back
from rfho.checks.diagnosis.growth import Growth, growth_findings, growth_of
from rfho.checks.diagnosis.idle import effect_findings, zero_findings
from rfho.checks.diagnosis.keys import key_findings
from rfho.checks.diagnosis.noise import noise_findings
from rfho.checks.diagnosis.non_finite import forward_findings, non_finite_findings
from rfho.checks.diagnosis.precision import precision_findings
from rfho.checks.diagnosis.purity import repeat_findings
from rfho.checks.diagnosis.self_report import claim_findings
from rfho.checks.diagnosis.smoothness import Smoothness, smoothness_findings, smoothness_of
from rfho.checks.diagnosis.stops import stop_findings
from rfho.checks.diagnosis.untrained import untrained_findings
from rfho.checks.diagnosis.whole import whole_findings, whole_run
from rfho.checks.finite_differences import Verdict
from rfho.checks.line import Line, line_through
from rfho.checks.traced import refuse_traced
from rfho.domains import Reals
from rfho.hyper_gradients import AbstractHyperGradient, Mode
from rfho.hyper_gradients.once import placed
from rfho.problem.moment import AbstractMoment, select
from rfho.problem.validate import validate
from rfho.typing import Hyper, PyTree


class Diagnosis(NamedTuple):
    """What `diagnose` found; it prints as sentences.

    Attributes:
        findings: everything that is wrong or worth knowing, empty for a healthy problem.
        growth: how the signal grows or fades from step to step; None if there is no finite signal.
        smoothness: how the hypergradient changes between near points; None if it is not finite.
    """

    findings: tuple[Finding, ...]
    growth: Growth | None = None
    smoothness: Smoothness | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that makes the hypergradient doubtful."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of all findings."""
        return {finding.kind for finding in self.findings}

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings] or ["nothing wrong was found"]
        if self.growth is not None:
            lines.append(f"measured: {self.growth}")
        if self.smoothness is not None:
            lines.append(
                "measured: the signs of hypergradients at two near points agree by "
                f"{self.smoothness.agreement:.2f} (from -1 to 1)"
            )
        return "\n".join(lines)


def diagnose(
    problem: AbstractMoment,
    hyper: Hyper,
    method: AbstractHyperGradient | None = None,
    *,
    domain: PyTree = Reals(),
    key: Array | int = 0,
) -> Diagnosis:
    """Looks for whatever can make a hypergradient wrong, and says what, where, why and what to do.

    First the programs are examined without being run: whether they are functions, whether random
    keys are used once, whether every hyperparameter reaches something. Then training is run there
    and back with the size of the signal noted at every step, at λ and at four points near it; two
    more runs say whether the hypergradient is the derivative of what training computes.

    Args:
        problem: what is tuned.
        hyper: λ, where to look.
        method: the method that is meant to be used; what it says of its own estimate is then heard
            too, and compared with the hypergradient of the same run.
        domain: a domain, or a tree prefix of ``hyper`` with domains, which no point that is looked at leaves:
            `Fixed` leaves are not learned.
        key: a JAX random key, or an int as its seed, for the directions in which to look.

    Cost:
        The time of about seven reverse hypergradients, plus one compilation for each method; up to 36
        more runs if finite differences do not confirm the hypergradient at once, and as many
        evaluations of a step for each leaf if they deny it. Memory of all T states.

    Returns:
        A `Diagnosis`. Nothing found is no proof: kinks away from λ, old-style random keys, and
        randomness inside functions that were compiled before are not seen.

    Raises:
        TypeError, ValueError: problem, hyperparameters and method do not fit each other, or are being
            traced by JAX.

    Example:
        A rate above 2/L, which `diagnose` tells from the growth of the signal:

        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: 5 * w**2, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(())
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w**2, train=None, valid=None, horizon=20
        ... )
        >>> rfho.diagnose(problem, {"lr": 0.05}).healthy
        True
        >>> [finding.kind.name for finding in rfho.diagnose(problem, {"lr": 0.3}).findings]
        ['EXPLOSION']
    """
    refuse_traced((problem, hyper), "diagnose")
    problem, free, space = placed(problem, hyper, domain)
    idle, impure = _idle(problem, free), repeat_findings(problem, free)
    if impure:
        return Diagnosis(tuple(impure))
    found = idle + key_findings(problem, free) + untrained_findings(problem, free)
    for_line, for_parts = jax.random.split(tree.as_key(key, "diagnose"))
    for_noise = jax.random.fold_in(for_parts, 1)
    line = _sparing(line_through(space, free, for_line), found)
    case, forward = (
        Case(problem, free, space, line),
        method is not None and method.mode is Mode.FORWARD,
    )
    found += stop_findings(case)
    record = attempted(case.record)
    if isinstance(record, NoDerivative):
        return _without_way_back(case, method, known=found, why=record)
    refuse_traced(record, "diagnose")
    found += precision_findings(record.final)
    spoilt = non_finite_findings(case, record)
    if spoilt:
        return Diagnosis(
            (*found, *(_spared(each, Kind.MASKED_DERIVATIVE, forward) for each in spoilt))
        )
    exact = select(problem, free, record.hypergradient)
    near = functools.cache(case.near)
    whole = functools.cache(lambda: whole_run(case, near, record.hypergradient))
    growth = growth_of(record.adjoint, backwards=True)
    chaotic = lambda: whole().verdict is not Verdict.AGREES  # noqa: E731
    found += growth_findings(growth, case, record.adjoint, chaotic=chaotic)
    found += zero_findings(exact, found)
    smoothness = smoothness_of(case, lambda h: select(problem, free, near(h).hypergradient))
    found += noise_findings(case, smoothness, for_noise) or smoothness_findings(smoothness)
    found += whole_findings(case, for_parts, whole=whole, known=found)
    if method is not None:
        found += claim_findings(problem, free, method, exact=exact)
    return Diagnosis(tuple(found), growth, smoothness)


def _idle(problem: AbstractMoment, hyper: Hyper) -> list[Finding]:
    """Hyperparameters without effect; whatever else does not fit is raised."""
    try:
        validate(problem, hyper)
    except ValueError:
        idle = effect_findings(problem, hyper)
        if not idle:
            raise
        return idle
    return []


def _sparing(line: Line, known: list[Finding]) -> Line:
    """The line without the leaves of which something is known already."""
    told = {finding.where.leaf for finding in known}
    keep = lambda path, d: jnp.where(tree.path_of(path, "hyper") in told, 0, d)  # noqa: E731
    direction = jax.tree.map_with_path(keep, line.direction)
    return Line(line.space, line.start, direction, line.one_sided)


def _spared(finding: Finding, kind: Kind, forward: bool) -> Finding:
    """The finding as a note, if it is of this kind and the method goes forward."""
    harmless = forward and finding.kind is kind
    return finding._replace(severity=Severity.NOTE) if harmless else finding


def _without_way_back(
    case: Case, method: AbstractHyperGradient | None, *, known: list[Finding], why: NoDerivative
) -> Diagnosis:
    """Where reverse mode is not to be had, forward mode tells what it can."""
    pushes = attempted(case.pushes)
    if isinstance(pushes, NoDerivative):
        return Diagnosis((*known, no_way_back(case, why, forward=False)))
    forward = method is not None and method.mode is Mode.FORWARD
    finding = no_way_back(case, why, forward=True)
    found = [*known, _spared(finding, Kind.NOT_DIFFERENTIABLE, forward)]
    growth = growth_of(pushes.tangent, backwards=False)
    found += forward_findings(pushes, case.paths)
    found += growth_findings(growth, case, pushes.tangent, chaotic=lambda: True)
    if method is not None and forward:
        found += claim_findings(case.problem, case.hyper, method, exact=None)
    return Diagnosis(tuple(found), growth)
