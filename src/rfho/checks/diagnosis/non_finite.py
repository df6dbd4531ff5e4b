"""Where the first NaN or infinity arises, there or back, and the equation that makes it.

Once the record says at which step something became non-finite, that step alone (or its vjp) is run
again, equation by equation. A NaN that reverse mode meets and forward mode does not comes from a
branch that is masked: `jnp.where(x > 0, jnp.sqrt(x), 0)` computes 0 · ∞ on the way back.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfho import _tree as tree
from rfho._engines.reverse import chain_of
from rfho._programs.first_bad_equation import Origin, origin_of_non_finite
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.signal import Held, Pushes, Record, there_and_back
from rfho.dynamics import Keep
from rfho.problem.problem import Problem
from rfho.typing import Hyper, PyTree, State

_REMEDIES = {
    "sqrt": "√ and every norm have an infinite derivative at 0: add a small number under the root, which "
    "for Adam and its kin is eps_root, or take rfho.optim.adam",
    "rsqrt": "add a small number under the root",
    "log": "keep its argument away from 0, or use log1p, log_softmax or xlogy",
    "pow": "a power below 1 has an infinite derivative at 0: keep its base away from 0",
    "div": "keep the denominator away from 0",
    "exp": "keep its argument small, or subtract the maximum first",
    "acos": "keep its argument inside (-1, 1)",
    "asin": "keep its argument inside (-1, 1)",
}
_OVERFLOW = "numbers overflowed: lower the rate, shorten the horizon, or clip the gradient"


def non_finite_findings(
    problem: Problem,
    hyper: Hyper,
    record: Record,
    *,
    paths: list[str],
    forward: Callable[[], Pushes | None],
) -> list[Finding]:
    """At most one finding: what came first explains the rest.

    Args:
        problem: under diagnosis.
        hyper: λ.
        record: what was seen.
        paths: the columns of the record.
        forward: forward mode along one direction, run if asked for; None where it is not to be had.
    """
    state_bad = ~np.asarray(record.state_finite)
    if state_bad.any():
        return [_in_training(problem, hyper, state_bad, paths)]
    if not np.all(np.isfinite(record.value)):
        return [_in_objective(problem, hyper, record.final)]
    back_bad = ~np.asarray(record.adjoint_finite)
    if back_bad.any():
        return [_on_the_way_back(problem, hyper, back_bad, paths=paths, forward=forward)]
    bad = tree.first_non_finite(record.hypergradient, "hyper")
    return [] if bad is None else [_through_init(problem, hyper, bad, forward)]


def forward_findings(pushes: Pushes, paths: list[str]) -> list[Finding]:
    """The same of forward mode, where there is no way back to be recorded."""
    bad = ~np.asarray(pushes.tangent_finite)
    if not bad.any():
        return []
    t, leaf = _first(bad)
    message = (
        f"the tangent of {paths[leaf]} becomes NaN or infinite at step {max(t - 1, 0)}: a derivative there is "
        "infinite, or numbers overflowed; lower the rate, or look for a root at 0"
    )
    where = Where(paths[leaf], max(t - 1, 0))
    return [Finding(Kind.NON_FINITE_DERIVATIVE, where, message, Severity.ERROR)]


def _in_training(problem: Problem, hyper: Hyper, bad: np.ndarray, paths: list[str]) -> Finding:
    t, leaf = _first(bad)
    if t == 0:
        origin = origin_of_non_finite(lambda h: tree.inexact(problem.init(h)), hyper)
        because = _because(origin)
        message = f"{paths[leaf]} is not finite at the very start{because}"
        where = Where(leaf=paths[leaf])
        return Finding(Kind.NON_FINITE_TRAINING, where, message, Severity.ERROR)
    held = _held(problem, hyper, t - 1)
    step = lambda s, h: tree.inexact(problem.step(s, h, t - 1))  # noqa: E731
    origin = origin_of_non_finite(step, held.state, hyper)
    size = float(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in _leaves(held.state)])))
    message = (
        f"{paths[leaf]} becomes NaN or infinite at step {t - 1}, before which the largest entry of the state is "
        f"{size:.3g}{_because(origin, large=size > 1e6)}"
    )
    where = Where(paths[leaf], t - 1)
    return Finding(Kind.NON_FINITE_TRAINING, where, message, Severity.ERROR)


def _in_objective(problem: Problem, hyper: Hyper, final: State) -> Finding:
    read = lambda s, h: problem.evaluate(problem.dynamics.output(s), h)  # noqa: E731
    origin = origin_of_non_finite(read, final, hyper)
    message = f"the objective is not finite though all states are{_because(origin)}"
    where = Where(step=problem.horizon)
    return Finding(Kind.NON_FINITE_OBJECTIVE, where, message, Severity.ERROR)


def _on_the_way_back(
    problem: Problem,
    hyper: Hyper,
    bad: np.ndarray,
    *,
    paths: list[str],
    forward: Callable[[], Pushes | None],
) -> Finding:
    t, leaf = _first(bad[::-1])
    t = len(bad) - 1 - t
    held = _held(problem, hyper, t)
    if t == problem.horizon:
        place = "the derivative of the objective"
        final = there_and_back(problem, hyper, jnp.asarray(-1)).final
        origin = origin_of_non_finite(lambda s, h: problem.read(s, h)[1:], final, hyper)
    else:
        place = f"step {t}, pulled back"
        pull = lambda c, s, h: _pulled(problem, h, s, cotangents=c, t=t)  # noqa: E731
        origin = origin_of_non_finite(pull, held.cotangents, held.state, hyper)
    return _derivative(Where(paths[leaf], t), place, origin, forward)


def _through_init(
    problem: Problem, hyper: Hyper, path: str, forward: Callable[[], Pushes | None]
) -> Finding:
    def back(hyper: Hyper) -> PyTree:
        start, vjp = jax.vjp(lambda h: tree.inexact(problem.init(h)), hyper)
        return vjp(jax.tree.map(jnp.ones_like, start))

    return _derivative(
        Where(leaf=path), "the initial state", origin_of_non_finite(back, hyper), forward
    )


def _derivative(
    where: Where, place: str, origin: Origin | None, forward: Callable[[], Pushes | None]
) -> Finding:
    found = f"{place}: the cotangent of {where.leaf} becomes NaN or infinite though all values are finite"
    pushes = forward()
    if pushes is not None and _all_finite(pushes):
        message = (
            f"{found}, and forward mode finds nothing of the kind, so a branch that jnp.where masks is at fault"
            f"{_because(origin)}. Make its argument harmless before it is used, jnp.where(ok, f(jnp.where(ok, x, "
            "1)), 0), or take ForwardHyperGradient"
        )
        return Finding(Kind.MASKED_DERIVATIVE, where, message, Severity.ERROR)
    message = f"{found}{_because(origin)}"
    return Finding(Kind.NON_FINITE_DERIVATIVE, where, message, Severity.ERROR)


def _because(origin: Origin | None, *, large: bool = False) -> str:
    if origin is None:
        return f". {_OVERFLOW.capitalize()}"
    remedy = _OVERFLOW if large else _REMEDIES.get(origin.primitive, _OVERFLOW)
    return f"; it begins with {origin}. Remedy: {remedy}"


def _pulled(problem: Problem, hyper: Hyper, state: State, *, cotangents: PyTree, t: int) -> PyTree:
    chain = chain_of(problem, hyper, Keep.STATES)
    _, memory = chain.remember(state, t)
    return chain.pull_back(cotangents, state, memory, t)


def _held(problem: Problem, hyper: Hyper, t: int) -> Held:
    return there_and_back(problem, hyper, jnp.asarray(t)).held


def _first(bad: np.ndarray) -> tuple[int, int]:
    t = int(np.argmax(bad.any(axis=1)))
    return t, int(np.argmax(bad[t]))


def _all_finite(pushes: Pushes) -> bool:
    return bool(np.all(pushes.tangent_finite) and np.all(np.isfinite(pushes.derivative)))


def _leaves(state: State) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree.inexact(state)) if leaf.size]
