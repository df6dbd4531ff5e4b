"""Where a wrong derivative comes from: the loss, a step, the objective or the initial state, and which leaf.

Trainings that differ by little say that some rule is wrong, whichever mode applies it. The parts are then
asked one by one, at the states and with the adjoints of the run itself, and one leaf at a time.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._engines.reverse import chain_of
from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.case import Case
from rfho.checks.diagnosis.signal import Held
from rfho.checks.finite_differences import Difference, Verdict
from rfho.checks.line import unit_normal
from rfho.checks.second_order import second_order
from rfho.checks.slopes import Point, slopes_of
from rfho.dynamics import Keep
from rfho.typing import PyTree, Scalar, State

_LOOK_FOR = "Look for a stop_gradient, a custom_vjp or a rounding"


def part_findings(case: Case, key: Array) -> list[Finding]:
    """One finding for each leaf along which a part's derivative disagrees with finite differences."""
    t = case.problem.horizon // 2
    record = case.record(t)
    for_loss, for_part = jax.random.split(key)
    found = second_findings(case, for_loss)
    parts = [("the objective", case.problem.horizon, _objective(case, record.final))]
    if not found:
        start = ("the initial state", 0, _init(case, for_part))
        parts += [("a step", t, _step(case, record.held, t)), start]
    for part, step, (function, point, claims) in parts:
        for slope in slopes_of(function, point, claims, space=case.space, key=for_part):
            if slope.verdict is Verdict.DISAGREES:
                message = (
                    f"the derivative of {part} by {slope.path} is wrong: {slope}. {_LOOK_FOR} between {slope.path} "
                    f"and {part}"
                )
                where = Where(slope.path, step)
                found.append(Finding(Kind.WRONG_DERIVATIVE, where, message, Severity.ERROR))
    return found


def second_findings(case: Case, key: Array) -> list[Finding]:
    """One finding for each leaf along which the gradient of the inner loss disagrees; `Descent` only."""
    message = (
        "the gradient of the inner loss changes with {0.path} otherwise than its own derivative says: {0}. "
        f"{_LOOK_FOR} between {{0.path}} and the loss"
    )
    return [
        Finding(
            Kind.WRONG_SECOND_DERIVATIVE,
            Where(slope.path, 0),
            message.format(slope),
            Severity.ERROR,
        )
        for slope in second_order(case.problem, case.hyper, case.space, key=key)
        if slope.verdict is Verdict.DISAGREES
    ]


def whole_finding(claimed: float, found: Difference) -> Finding:
    """What is said if the whole run disagrees and no part of it does."""
    message = (
        f"along a random direction of λ the hypergradient says {claimed:.6g}, and two trainings that differ by "
        f"little {found.value:.6g} ± {found.error:.1g}: a derivative rule is wrong, or f has kinks or is rounded. "
        f"Its parts are right where they were looked at, so it shows at other steps or batches. {_LOOK_FOR}"
    )
    return Finding(Kind.WRONG_DERIVATIVE, Where(), message, Severity.ERROR)


Part = tuple[Callable[[Point], Scalar], Point, Point]
"""A scalar function, where it is asked, and its derivative there as the engines have it."""


def _objective(case: Case, final: State) -> Part:
    problem = case.problem
    inside, rest = tree.split(final)
    reading = problem.read(final, case.hyper)

    def value(point: Point) -> Scalar:
        params = problem.dynamics.output(eqx.combine(point["state"], rest))
        return sum(jax.tree.leaves(problem.evaluate(params, point["hyper"])), jnp.zeros(()))

    claims = _summed(case, {"state": reading.by_state, "hyper": reading.by_hyper})
    return value, {"state": inside, "hyper": case.hyper}, claims


def _step(case: Case, held: Held, t: int) -> Part:
    """The step's ⟨α_{t+1}, Φ(s_t, λ)⟩, which is pulled back as the reverse engine does it."""
    problem, hyper = case.problem, case.hyper
    inside, rest = tree.split(held.state)
    adjoint, by_hyper = jax.tree.map(_finite_part, held.cotangents)

    def value(point: Point) -> Scalar:
        after = problem.step(eqx.combine(point["state"], rest), point["hyper"], t)
        return tree.dot(adjoint, tree.inexact(after))

    @jax.jit
    def pulled(cotangents: PyTree) -> PyTree:
        chain = chain_of(problem, hyper, Keep.STATES)
        _, memory = chain.remember(held.state, t)
        return chain.pull_back(cotangents, held.state, memory, t)

    by_state, by_hyper = pulled((adjoint, tree.zeros_like(by_hyper)))
    claims = _summed(case, {"state": by_state, "hyper": by_hyper})
    return value, {"state": inside, "hyper": hyper}, claims


def _init(case: Case, key: Array) -> Part:
    start, vjp = jax.vjp(lambda h: tree.inexact(case.problem.init(h)), case.hyper)
    v = jax.tree.map(_finite_part, unit_normal(start, key))

    def value(point: Point) -> Scalar:
        return tree.dot(v, tree.inexact(case.problem.init(point["hyper"])))

    return value, {"hyper": case.hyper}, {"hyper": vjp(v)[0]}


def _summed(case: Case, claims: Any) -> Any:
    """Over the objectives, if there are several."""
    several = case.problem.several_objectives
    return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), claims) if several else claims


def _finite_part(leaf: Array) -> Array:
    return jnp.where(jnp.isfinite(leaf), leaf, 0)
