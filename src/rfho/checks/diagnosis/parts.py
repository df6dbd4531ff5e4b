"""Where a wrong derivative comes from: the loss, a step, the objective or the initial state, and which leaf.

    f(λ + h d) - f(λ - h d)
    -----------------------  ≠  ⟨∇f(λ), d⟩
              2h

says that some rule is wrong, whichever mode applies it. The parts are then asked one by one, at the states
and with the adjoints of the run itself, and one leaf at a time.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho._engines.reverse import chain_of
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.signal import Held, there_and_back
from rfho.checks.finite_differences import Difference, Verdict, balanced_direction
from rfho.checks.second_order import second_order
from rfho.checks.slopes import Slope, slopes_of
from rfho.dynamics import Keep
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree, Scalar, State

_LOOK_FOR = "Look for a stop_gradient, a custom_vjp or a rounding"


def part_findings(problem: AbstractMoment, hyper: Hyper, key: Array) -> list[Finding]:
    """One finding for each leaf along which a part's derivative disagrees with finite differences."""
    t = problem.horizon // 2
    record = there_and_back(problem, hyper, jnp.asarray(t))
    for_loss, for_objective, for_step, for_init = jax.random.split(key, 4)
    found = second_findings(problem, hyper, for_loss)
    parts = [
        ("the objective", problem.horizon, _objective(problem, hyper, record.final, for_objective))
    ]
    if not found:
        parts += [
            ("a step", t, _step(problem, hyper, record.held, t=t, key=for_step)),
            ("the initial state", 0, _init(problem, hyper, for_init)),
        ]
    return found + [
        _first(part, step, one)
        for part, step, slopes in parts
        for one in slopes
        if one.verdict is Verdict.DISAGREES
    ]


def second_findings(problem: AbstractMoment, hyper: Hyper, key: Array) -> list[Finding]:
    """One finding for each leaf along which the gradient of the inner loss disagrees; `Descent` only."""
    slopes = second_order(problem, hyper, key)
    return [_second(one) for one in slopes if one.verdict is Verdict.DISAGREES]


def whole_finding(claimed: float, found: Difference) -> Finding:
    """What is said if the whole run disagrees and no part of it does."""
    message = (
        f"along a random direction of λ the hypergradient says {claimed:.6g}, and two trainings that differ by "
        f"little {found.value:.6g} ± {found.error:.1g}: a derivative rule is wrong, or f has kinks or is rounded. "
        f"Its parts are right where they were looked at, so it shows at other steps or batches. {_LOOK_FOR}"
    )
    return Finding(Kind.WRONG_DERIVATIVE, Where(), message, Severity.ERROR)


def _objective(
    problem: AbstractMoment, hyper: Hyper, final: State, key: Array
) -> tuple[Slope, ...]:
    inside, rest = tree.split(final)
    reading = problem.read(final, hyper)

    def value(point: PyTree) -> Scalar:
        params = problem.dynamics.output(eqx.combine(point["state"], rest))
        return sum(jax.tree.leaves(problem.evaluate(params, point["hyper"])), jnp.zeros(()))

    claims = _summed(problem, {"state": reading.by_state, "hyper": reading.by_hyper})
    return slopes_of(value, {"state": inside, "hyper": hyper}, claims, key=key)


def _step(
    problem: AbstractMoment, hyper: Hyper, held: Held, *, t: int, key: Array
) -> tuple[Slope, ...]:
    """Of ⟨α_{t+1}, Φ(s_t, λ)⟩, which is pulled back as the reverse engine does it."""
    inside, rest = tree.split(held.state)
    adjoint, by_hyper = jax.tree.map(
        lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), held.cotangents
    )

    def value(point: PyTree) -> Scalar:
        after = problem.step(eqx.combine(point["state"], rest), point["hyper"], t)
        return tree.dot(adjoint, tree.inexact(after))

    @jax.jit
    def pulled(cotangents: PyTree) -> PyTree:
        chain = chain_of(problem, hyper, Keep.STATES)
        _, memory = chain.remember(held.state, t)
        return chain.pull_back(cotangents, held.state, memory, t)

    by_state, by_hyper = pulled((adjoint, tree.zeros_like(by_hyper)))
    claims = _summed(problem, {"state": by_state, "hyper": by_hyper})
    return slopes_of(value, {"state": inside, "hyper": hyper}, claims, key=key)


def _init(problem: AbstractMoment, hyper: Hyper, key: Array) -> tuple[Slope, ...]:
    start, vjp = jax.vjp(lambda h: tree.inexact(problem.init(h)), hyper)
    for_v, for_u = jax.random.split(key)
    v = balanced_direction(start, for_v)
    v = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), v)

    def value(point: PyTree) -> Scalar:
        return tree.dot(v, tree.inexact(problem.init(point["hyper"])))

    return slopes_of(value, {"hyper": hyper}, {"hyper": vjp(v)[0]}, key=for_u)


def _summed(problem: AbstractMoment, claims: Any) -> Any:
    """Over the objectives, if there are several."""
    return (
        jax.tree.map(lambda leaf: jnp.sum(leaf, 0), claims)
        if problem.several_objectives
        else claims
    )


def _second(one: Slope) -> Finding:
    message = (
        f"the gradient of the inner loss changes with {one.path} otherwise than its own derivative says: {one}. "
        f"{_LOOK_FOR} between {one.path} and the loss"
    )
    return Finding(Kind.WRONG_SECOND_DERIVATIVE, Where(one.path, 0), message, Severity.ERROR)


def _first(part: str, step: int, one: Slope) -> Finding:
    message = f"the derivative of {part} by {one.path} is wrong: {one}. {_LOOK_FOR} between {one.path} and {part}"
    return Finding(Kind.WRONG_DERIVATIVE, Where(one.path, step), message, Severity.ERROR)
