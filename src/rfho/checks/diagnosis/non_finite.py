"""Where the NaN or infinity arises that spoils the result, there or back, and the equation that makes it.

What is not finite matters if the objective or the hypergradient is not. States may hold an infinity on
purpose (the best value so far), and Adam's slots of rows that are never used have a NaN for a cotangent:
neither reaches the result. The leaf that does is the one whose NaN, replaced by zero, no longer spoils it;
the step at which it arises (or its vjp) is then run again, equation by equation. A NaN that reverse mode
meets and forward mode does not comes from a branch that is masked: `jnp.where(x > 0, jnp.sqrt(x), 0)`
computes 0 · ∞ on the way back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfho._engines.reverse import chain_of
from rfho._programs import trees as tree
from rfho._programs.first_bad_equation import Origin, origin_of_non_finite
from rfho.checks.attempt import NoDerivative, attempted
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.case import Case
from rfho.checks.diagnosis.signal import Mended, Pushes, Record
from rfho.dynamics import Keep
from rfho.typing import Hyper, PyTree, State

_REMEDIES = {
    "sqrt": "√ and every norm have an infinite derivative at 0: add a small number under the root; "
    "rfho.optim.safe_roots sees to an optimiser in steps that you write yourself",
    "rsqrt": "add a small number under the root",
    "log": "keep its argument away from 0, or use log1p, log_softmax or xlogy",
    "pow": "a power below 1 has an infinite derivative at 0: keep its base away from 0",
    "div": "keep the denominator away from 0",
    "exp": "keep its argument small, or subtract the maximum first",
    "acos": "keep its argument inside (-1, 1)",
    "asin": "keep its argument inside (-1, 1)",
}
_OVERFLOW = "numbers overflowed: lower the rate, shorten the horizon, or clip the gradient"


def non_finite_findings(case: Case, record: Record) -> list[Finding]:
    """At most one finding: what came first explains the rest."""
    if not np.all(np.isfinite(record.value)):
        return [_on_the_way_there(case, record)]
    if tree.first_non_finite(record.hypergradient, "hyper") is not None:
        return [_on_the_way_back(case, record)]
    return []


def forward_findings(pushes: Pushes, paths: list[str]) -> list[Finding]:
    """The same of forward mode, where there is no way back to be recorded."""
    bad = ~np.asarray(pushes.tangent_finite)
    if np.all(np.isfinite(pushes.derivative)) or not bad.any():
        return []
    t = int(np.argmax(bad.any(axis=1)))
    where = Where(paths[int(np.argmax(bad[t]))], max(t - 1, 0))
    message = (
        f"the tangent of {where.leaf} becomes NaN or infinite at step {where.step}: a derivative there is "
        "infinite, or numbers overflowed; lower the rate, or look for a root at 0"
    )
    return [Finding(Kind.NON_FINITE_DERIVATIVE, where, message, Severity.ERROR)]


def _on_the_way_there(case: Case, record: Record) -> Finding:
    """In the initial state, in a step, or in the objective."""
    problem, hyper = case.problem, case.hyper
    mend = lambda leaves: Mended(jnp.asarray(leaves), jnp.zeros_like(record.back_finite[0]))  # noqa: E731
    cured = lambda leaves: np.all(np.isfinite(case.record(-1, mend(leaves)).value))  # noqa: E731
    culprit = _culprit(~np.asarray(record.state_finite), cured)
    if culprit is None:
        read = lambda s, h: problem.evaluate(problem.dynamics.output(s), h)  # noqa: E731
        because = _because(origin_of_non_finite(read, record.final, hyper))
        message = f"the objective is not finite though training is{because}"
        where = Where(step=problem.horizon)
        return Finding(Kind.NON_FINITE_OBJECTIVE, where, message, Severity.ERROR)
    leaf, t = culprit.leaf, culprit.moment - 1
    if t < 0:
        because = _because(origin_of_non_finite(lambda h: _inexact(problem.init(h))[leaf], hyper))
        where, message = Where(case.paths[leaf]), f"is not finite at the very start{because}"
    else:
        state = case.record(t, mend(culprit.harmless)).held.state
        step = lambda s, h: _inexact(problem.step(s, h, t))[leaf]  # noqa: E731
        size = max(float(jnp.max(jnp.abs(part))) for part in _inexact(state) if part.size)
        because = _because(origin_of_non_finite(step, state, hyper), large=size > 1e6)
        before = f"before which the largest entry of the state is {size:.3g}"
        where = Where(case.paths[leaf], t)
        message = f"becomes NaN or infinite at step {t}, {before}{because}"
    return Finding(Kind.NON_FINITE_TRAINING, where, f"{where.leaf} {message}", Severity.ERROR)


def _on_the_way_back(case: Case, record: Record) -> Finding:
    """In the derivative of the objective, of a step, or of the initial state."""
    problem, hyper = case.problem, case.hyper
    mend = lambda leaves: Mended(jnp.zeros_like(record.state_finite[0]), jnp.asarray(leaves))  # noqa: E731
    spoilt = lambda seen: tree.first_non_finite(seen.hypergradient, "hyper")  # noqa: E731
    cured = lambda leaves: spoilt(case.record(-1, mend(leaves))) is None  # noqa: E731
    culprit = _culprit(~np.asarray(record.back_finite)[::-1], cured)
    if culprit is None:
        origin = origin_of_non_finite(lambda h: _through_init(case, h), hyper)
        return _derivative(case, Where(spoilt(record)), place="the initial state", origin=origin)
    leaf, t = culprit.leaf, problem.horizon - culprit.moment
    if t == problem.horizon:
        read = lambda s, h: jax.tree.leaves(problem.read(s, h)[1:])[leaf]  # noqa: E731
        place, origin = "the objective", origin_of_non_finite(read, record.final, hyper)
    else:
        held = case.record(t, mend(culprit.harmless)).held

        def pulled(cotangents: PyTree, state: State, hyper: Hyper) -> Any:
            chain = chain_of(problem, hyper, Keep.STATES)
            _, memory = chain.remember(state, t)
            return jax.tree.leaves(chain.pull_back(cotangents, state, memory, t))[leaf]

        place = f"step {t}"
        origin = origin_of_non_finite(pulled, held.cotangents, held.state, hyper)
    return _derivative(case, Where(case.paths[leaf], t), place=place, origin=origin)


class _Culprit(NamedTuple):
    """The leaf whose NaN spoils the result, when it appears, and the leaves before it, which do no harm."""

    leaf: int
    moment: int
    harmless: np.ndarray


def _culprit(bad: np.ndarray, cured: Callable[[np.ndarray], Any]) -> _Culprit | None:
    """The first leaf whose NaN spoils the result, by bisection over the leaves in the order they appear.

    Args:
        bad: shape (moments, leaves), in the order in which they were computed.
        cured: whether the result is finite when the leaves of a mask are mended.

    Returns:
        None if the result is not finite even when all of them are mended.
    """
    appears = np.where(bad.any(axis=0), np.argmax(bad, axis=0), len(bad))
    order = [leaf for leaf in np.argsort(appears, kind="stable") if appears[leaf] < len(bad)]
    first = lambda count: np.isin(np.arange(bad.shape[1]), order[:count])  # noqa: E731
    if not order or not cured(first(len(order))):
        return None
    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if cured(first(middle)) else (middle, enough)
    leaf = int(order[enough - 1])
    return _Culprit(leaf, int(appears[leaf]), first(enough - 1))


def _derivative(case: Case, where: Where, *, place: str, origin: Origin | None) -> Finding:
    found = (
        f"the derivative of {place}: the cotangent of {where.leaf} becomes NaN or infinite though all values are "
        "finite"
    )
    pushes = attempted(case.pushes)
    if isinstance(pushes, NoDerivative) or not np.all(np.isfinite(pushes.derivative)):
        message = f"{found}{_because(origin)}"
        return Finding(Kind.NON_FINITE_DERIVATIVE, where, message, Severity.ERROR)
    message = (
        f"{found}, and forward mode finds nothing of the kind, so a branch that jnp.where masks is at fault"
        f"{_because(origin)}. Make its argument harmless before it is used, jnp.where(ok, f(jnp.where(ok, x, "
        "1)), 0), or take ForwardHyperGradient"
    )
    return Finding(Kind.MASKED_DERIVATIVE, where, message, Severity.ERROR)


def _through_init(case: Case, hyper: Hyper) -> PyTree:
    start, vjp = jax.vjp(lambda h: tree.inexact(case.problem.init(h)), hyper)
    return vjp(jax.tree.map(jnp.ones_like, start))


def _because(origin: Origin | None, *, large: bool = False) -> str:
    if origin is None:
        return f". {_OVERFLOW.capitalize()}"
    remedy = _OVERFLOW if large else _REMEDIES.get(origin.primitive, _OVERFLOW)
    return f"; it begins with {origin}. Remedy: {remedy}"


def _inexact(state: State) -> list[Any]:
    return jax.tree.leaves(tree.inexact(state))
