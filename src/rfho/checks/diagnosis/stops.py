"""A stop_gradient that hides from the derivative what training does: running statistics, targets, codebooks.

A leaf of the state that moves with the parameters and has no derivative by them makes a hypergradient that
looks well and is wrong. The first steps tell: each is differentiated twice, as it is and as if a stop_gradient
were not there,

    z_t = A_t z_{t-1} + B_t d,    z'_t = A'_t z'_{t-1} + B'_t d,    ∂E/∂λ d + ∂E/∂s z,

and where both are the same it does no harm: the largest logit of a softmax, features that are not trained.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rfho._programs import trees as tree
from rfho._programs.stop_gradients import stopping_lines, unstopped
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.case import Case
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree, State

STEPS = 3
"""From a tangent of the parameters to one of the statistics, and from there to what reads them."""


class Tangents(NamedTuple):
    """Tangents of the first steps along one direction.

    Attributes:
        states: of s_0, s_1, …, the inexact leaves stacked.
        values: of the objectives after the last of them.
    """

    states: PyTree
    values: PyTree


def stop_findings(case: Case, steps: int = STEPS) -> list[Finding]:
    """One finding for each line that stops a gradient which the first ``steps`` have."""
    steps = min(steps, case.problem.horizon)
    lines = stopping_lines(lambda h: _first_steps(case.problem, h, steps), case.hyper)
    velocity = case.line.velocity

    def tangents(*through: str) -> Tangents:
        return _tangents(case.problem, case.hyper, velocity, steps=steps, through=through)

    if not lines or not _differ((cut := tangents()).values, tangents(*lines).values, case.epsilon):
        return []
    each = {line: tangents(line) for line in lines}
    return [
        _finding(line, _where(case, cut.states, whole.states), cut=cut.values, whole=whole.values)
        for line, whole in each.items()
        if _differ(cut.values, whole.values, case.epsilon)
    ]


def _first_steps(problem: AbstractMoment, hyper: Hyper, steps: int) -> tuple[PyTree, PyTree]:
    """s_0, …, s_n stacked, and the objectives at the last."""

    def step(state: State, t: Array) -> tuple[State, PyTree]:
        after = problem.step(state, hyper, t)
        return after, tree.inexact(after)

    start = problem.init(hyper)
    last, states = jax.lax.scan(step, start, jnp.arange(steps))
    stacked = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), tree.inexact(start), states)
    return stacked, problem.evaluate(problem.dynamics.output(last), hyper)


@eqx.filter_jit
def _tangents(
    problem: AbstractMoment, hyper: Hyper, velocity: Hyper, *, steps: int, through: tuple[str, ...]
) -> Tangents:
    """With the derivatives that the lines ``through`` stop."""
    first = unstopped(lambda h: _first_steps(problem, h, steps), through)
    return Tangents(*jax.jvp(first, (hyper,), (velocity,))[1])


def _differ(cut: PyTree, whole: PyTree, epsilon: float) -> bool:
    left, right = (np.asarray(jax.tree.leaves(values), np.float64) for values in (cut, whole))
    return bool(np.any(np.abs(left - right) > 10 * epsilon**0.5 * (np.abs(left) + np.abs(right))))


def _where(case: Case, cut: PyTree, whole: PyTree) -> Where:
    """The step after which a leaf's tangents first differ, and the leaf; the end, if none does."""
    leaves = zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True)
    gaps = np.asarray([_gaps(left, right) for left, right in leaves])
    seen = gaps > 10 * case.epsilon**0.5
    if not seen.any():
        return Where(None, case.problem.horizon)
    t = int(np.argmax(seen.any(axis=0)))
    return Where(case.paths[int(np.argmax(gaps[:, t]))], max(t - 1, 0))


def _gaps(left: Array, right: Array) -> np.ndarray:
    """For each state the size of the difference, by the size of both."""
    sizes = [
        np.linalg.norm(np.reshape(x, (len(x), -1)), axis=1) for x in (left - right, left, right)
    ]
    return np.asarray(sizes[0] / np.maximum(sizes[1] + sizes[2], np.finfo(float).tiny))


def _finding(line: str, where: Where, *, cut: PyTree, whole: PyTree) -> Finding:
    at = f" at {line}" if line else ""
    what = "the objective changes" if where.leaf is None else f"{where.leaf} moves"
    left, right = (sum(map(float, jax.tree.leaves(values))) for values in (cut, whole))
    message = (
        f"{what} with λ by way of a stop_gradient{at}, of which the hypergradient sees nothing: along a random "
        f"direction the objective after the first steps has the derivative {left:.6g}, and {right:.6g} without the "
        "stop. Take it out (statistics and targets of the state need none, since only the loss's own gradient "
        "trains), or mark what acts by it rfho.Fixed()"
    )
    return Finding(Kind.STOPPED, where, message, Severity.ERROR)
