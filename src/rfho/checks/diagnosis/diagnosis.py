"""One question, "can this hypergradient be trusted?", put to everything that can be looked at."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.growth import Growth, growth_findings, growth_of
from rfho.checks.diagnosis.idle import effect_findings, zero_findings
from rfho.checks.diagnosis.keys import key_findings
from rfho.checks.diagnosis.non_finite import forward_findings, non_finite_findings
from rfho.checks.diagnosis.precision import precision_findings
from rfho.checks.diagnosis.purity import repeat_findings
from rfho.checks.diagnosis.self_report import claim_findings
from rfho.checks.diagnosis.signal import Pushes, Record, leaf_paths, pushed_along, there_and_back
from rfho.checks.diagnosis.smoothness import Smoothness, smoothness_findings, smoothness_of
from rfho.checks.diagnosis.whole import Near, whole_findings, whole_run
from rfho.checks.finite_differences import Verdict, balanced_direction, rounding_of
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    RandomForwardHyperGradient,
    RealTimeHyperGradient,
)
from rfho.problem.moment import AbstractMoment, select
from rfho.problem.validate import validate
from rfho.typing import Hyper

T = TypeVar("T")


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
            too, and a window K is compared with 2K.
        key: a JAX random key, or an int as its seed, for the directions in which to look.

    Cost:
        The time of about seven reverse hypergradients, plus one compilation for each method; up to 36
        more runs if finite differences do not confirm the hypergradient at once, and as many
        evaluations of a step for each leaf if they deny it. Memory of all T states.

    Returns:
        A `Diagnosis`. Nothing found is no proof: kinks away from λ, old-style random keys, and
        randomness inside functions that were compiled before are not seen.

    Raises:
        TypeError, ValueError: problem, hyperparameters and method do not fit each other.

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
    if not isinstance(problem, AbstractMoment):
        raise TypeError(f"got a {type(problem).__name__} where a rfho.Problem was expected")
    hyper = tree.as_hyper(hyper)
    impure = repeat_findings(problem, hyper)
    if impure:
        return Diagnosis(tuple(impure))
    found = _idle(problem, hyper) + key_findings(problem, hyper)
    key = tree.as_key(key, "diagnose")
    for_direction, for_parts = jax.random.split(key)
    direction = _sparing(balanced_direction(hyper, for_direction), found)
    case = _Case(problem, hyper, method, direction)
    record = case.record()
    if isinstance(record, Finding):
        return _without_way_back(case, found, record)
    found += precision_findings(record) + case.non_finite(record)
    if any(map(_stops, found)):
        return Diagnosis(tuple(found))
    epsilon = rounding_of((hyper, record.final))
    near = functools.cache(case.near)
    whole = functools.cache(
        lambda: whole_run(near, record.hypergradient, case.direction, epsilon=epsilon)
    )
    growth = growth_of(record.adjoint, backwards=True)
    found += case.growth(record, growth, probe=lambda: whole().verdict)
    found += zero_findings(select(problem, hyper, record.hypergradient), found)
    smoothness = smoothness_of(lambda h: select(problem, hyper, near(h).hypergradient), epsilon)
    found += smoothness_findings(smoothness)
    found += whole_findings(problem, hyper, for_parts, whole=whole, known=found)
    found += case.claims(sound=True)
    return Diagnosis(tuple(found), growth, smoothness)


class _Case(NamedTuple):
    """What is under diagnosis, and the direction in which finite differences are taken."""

    problem: AbstractMoment
    hyper: Hyper
    method: AbstractHyperGradient | None
    direction: Hyper

    def record(self) -> Record | Finding:
        return _tried(lambda: there_and_back(self.problem, self.hyper, jnp.asarray(-1)), "reverse")

    def near(self, h: float) -> Near:
        moved = lambda leaf, d: (leaf + h * d).astype(leaf.dtype)  # noqa: E731
        at = jax.tree.map(moved, self.hyper, self.direction)
        record = there_and_back(self.problem, at, jnp.asarray(-1))
        return Near(float(jnp.sum(record.value)), record.hypergradient)

    def pushes(self) -> Pushes | Finding:
        return _tried(lambda: pushed_along(self.problem, self.hyper, self.direction), "forward")

    def paths(self) -> list[str]:
        return leaf_paths(self.problem, self.hyper)

    def non_finite(self, record: Record) -> list[Finding]:
        def forward() -> Pushes | None:
            pushes = self.pushes()
            return pushes if isinstance(pushes, Pushes) else None

        found = non_finite_findings(
            self.problem, self.hyper, record, paths=self.paths(), forward=forward
        )
        spared = _goes_forward(self.method)
        return [
            f._replace(severity=Severity.NOTE) if spared and f.kind is Kind.MASKED_DERIVATIVE else f
            for f in found
        ]

    def growth(
        self, record: Record, growth: Growth, *, probe: Callable[[], Verdict]
    ) -> list[Finding]:
        epsilon = rounding_of((self.hyper, record.final))
        return growth_findings(growth, self.paths(), record.adjoint, probe=probe, epsilon=epsilon)

    def claims(self, *, sound: bool) -> list[Finding]:
        if self.method is None:
            return []
        return claim_findings(self.problem, self.hyper, self.method, sound=sound)


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


def _sparing(direction: Hyper, known: list[Finding]) -> Hyper:
    """The direction without the leaves of which something is known already."""
    told = {finding.where.leaf for finding in known}
    keep = lambda path, d: jnp.where(tree.path_of(path, "hyper") in told, 0, d)  # noqa: E731
    return jax.tree.map_with_path(keep, direction)


def _without_way_back(case: _Case, found: list[Finding], why: Finding) -> Diagnosis:
    """Where reverse mode is not to be had, forward mode tells what it can."""
    forward = _goes_forward(case.method)
    found = [*found, why._replace(severity=Severity.NOTE) if forward else why]
    pushes = case.pushes()
    if isinstance(pushes, Finding):
        return Diagnosis((*found, pushes))
    paths, growth = case.paths(), growth_of(pushes.tangent, backwards=False)
    found += forward_findings(pushes, paths)
    found += growth_findings(
        growth,
        paths,
        pushes.tangent,
        probe=lambda: Verdict.UNDECIDED,
        epsilon=rounding_of(case.hyper),
    )
    return Diagnosis((*found, *(case.claims(sound=False) if forward else [])), growth)


def _tried(run: Callable[[], T], mode: str) -> T | Finding:
    try:
        return run()
    except (TypeError, ValueError, NotImplementedError) as error:
        account = str(error).partition("\n")[0]
        if not any(word in account.lower() for word in ("differentiation", "forward-mode", "jvp")):
            raise
        message = (
            f"training cannot be differentiated in {mode} mode (JAX says: {account}): take the other mode, or a "
            "method without derivatives such as rfho.PersistentEvolutionHyperGradient"
        )
        return Finding(Kind.NOT_DIFFERENTIABLE, Where(), message, Severity.ERROR)


def _goes_forward(method: AbstractHyperGradient | None) -> bool:
    forward = ForwardHyperGradient, RealTimeHyperGradient, RandomForwardHyperGradient
    return isinstance(method, forward)


def _stops(finding: Finding) -> bool:
    """Whether there is no hypergradient to look at any further."""
    return finding.kind in (
        Kind.NON_FINITE_TRAINING,
        Kind.NON_FINITE_OBJECTIVE,
        Kind.NON_FINITE_DERIVATIVE,
        Kind.MASKED_DERIVATIVE,
    )
