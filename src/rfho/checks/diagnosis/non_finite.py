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

from rfho import _tree as tree
from rfho._engines.reverse import chain_of
from rfho._programs.first_bad_equation import Origin, origin_of_non_finite
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.signal import Held, Mended, Pushes, Record, there_and_back
from rfho.dynamics import Keep
from rfho.problem.moment import AbstractMoment
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
    problem: AbstractMoment,
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
    run = _Run(problem, hyper, record, paths)
    if not np.all(np.isfinite(record.value)):
        return [run.on_the_way_there()]
    if tree.first_non_finite(record.hypergradient, "hyper") is not None:
        return [run.on_the_way_back(forward)]
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


class _Culprit(NamedTuple):
    """The leaf whose NaN spoils the result, when it appears, and the leaves before it, which do no harm."""

    leaf: int
    moment: int
    harmless: np.ndarray


class _Run(NamedTuple):
    """A run in which something was not finite."""

    problem: AbstractMoment
    hyper: Hyper
    record: Record
    paths: list[str]

    def on_the_way_there(self) -> Finding:
        """In the initial state, in a step, or in the objective."""
        bad = ~np.asarray(self.record.state_finite)
        cured = lambda leaves: np.all(np.isfinite(self._again(state=leaves).value))  # noqa: E731
        culprit = _culprit(bad, cured)
        if culprit is None:
            return self._in_objective()
        leaf, t, harmless = culprit
        if t == 0:
            origin = origin_of_non_finite(
                lambda h: _inexact(self.problem.init(h))[leaf], self.hyper
            )
            message = f"{self.paths[leaf]} is not finite at the very start{_because(origin)}"
            where = Where(leaf=self.paths[leaf])
            return Finding(Kind.NON_FINITE_TRAINING, where, message, Severity.ERROR)
        state = self._held(t - 1, state=harmless).state
        step = lambda s, h: _inexact(self.problem.step(s, h, t - 1))[leaf]  # noqa: E731
        origin = origin_of_non_finite(step, state, self.hyper)
        size = max(float(jnp.max(jnp.abs(part))) for part in _inexact(state) if part.size)
        message = (
            f"{self.paths[leaf]} becomes NaN or infinite at step {t - 1}, before which the largest entry of the "
            f"state is {size:.3g}{_because(origin, large=size > 1e6)}"
        )
        where = Where(self.paths[leaf], t - 1)
        return Finding(Kind.NON_FINITE_TRAINING, where, message, Severity.ERROR)

    def on_the_way_back(self, forward: Callable[[], Pushes | None]) -> Finding:
        """In the derivative of the objective, of a step, or of the initial state."""
        bad = ~np.asarray(self.record.back_finite)[::-1]

        def cured(leaves: np.ndarray) -> bool:
            hypergradient = self._again(back=leaves).hypergradient
            return tree.first_non_finite(hypergradient, "hyper") is None

        culprit = _culprit(bad, cured)
        if culprit is None:
            path = tree.first_non_finite(self.record.hypergradient, "hyper")
            origin = origin_of_non_finite(self._through_init, self.hyper)
            return _derivative(Where(leaf=path), "the initial state", origin, forward)
        leaf, t, harmless = culprit
        t = self.problem.horizon - t
        where = Where(self.paths[leaf], t)
        if t == self.problem.horizon:
            read = lambda s, h: jax.tree.leaves(self.problem.read(s, h)[1:])[leaf]  # noqa: E731
            origin = origin_of_non_finite(read, self.record.final, self.hyper)
            return _derivative(where, "the derivative of the objective", origin, forward)
        held = self._held(t, back=harmless)

        def pulled(cotangents: PyTree, state: State, hyper: Hyper) -> Any:
            chain = chain_of(self.problem, hyper, Keep.STATES)
            _, memory = chain.remember(state, t)
            return jax.tree.leaves(chain.pull_back(cotangents, state, memory, t))[leaf]

        origin = origin_of_non_finite(pulled, held.cotangents, held.state, self.hyper)
        return _derivative(where, f"step {t}, pulled back", origin, forward)

    def _in_objective(self) -> Finding:
        read = lambda s, h: self.problem.evaluate(self.problem.dynamics.output(s), h)  # noqa: E731
        origin = origin_of_non_finite(read, self.record.final, self.hyper)
        message = f"the objective is not finite though all states are{_because(origin)}"
        where = Where(step=self.problem.horizon)
        return Finding(Kind.NON_FINITE_OBJECTIVE, where, message, Severity.ERROR)

    def _through_init(self, hyper: Hyper) -> PyTree:
        start, vjp = jax.vjp(lambda h: tree.inexact(self.problem.init(h)), hyper)
        return vjp(jax.tree.map(jnp.ones_like, start))

    def _held(self, t: int, **leaves: np.ndarray) -> Held:
        return self._again(t, **leaves).held

    def _again(
        self, hold: int = -1, *, state: np.ndarray | None = None, back: np.ndarray | None = None
    ) -> Record:
        """The run once more, with these leaves mended."""
        none = (
            np.zeros(seen.shape[1], bool)
            for seen in (self.record.state_finite, self.record.back_finite)
        )
        mended = (
            given if given is not None else zeros
            for given, zeros in zip((state, back), none, strict=True)
        )
        return there_and_back(
            self.problem, self.hyper, jnp.asarray(hold), Mended(*map(jnp.asarray, mended))
        )


def _culprit(bad: np.ndarray, cured: Callable[[np.ndarray], Any]) -> _Culprit | None:
    """The first leaf whose NaN spoils the result, by bisection over the leaves in the order they appear.

    Args:
        bad: shape (moments, leaves), in the order in which they were computed.
        cured: whether the result is finite when the leaves of a mask are mended.

    Returns:
        None if the result is not finite even when all of them are mended.
    """
    order = [
        int(leaf)
        for leaf in np.argsort(np.argmax(bad, axis=0), kind="stable")
        if bad[:, leaf].any()
    ]

    def first(count: int) -> np.ndarray:
        return np.isin(np.arange(bad.shape[1]), order[:count])

    if not order or not cured(first(len(order))):
        return None
    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if cured(first(middle)) else (middle, enough)
    leaf = order[enough - 1]
    return _Culprit(leaf, int(np.argmax(bad[:, leaf])), first(enough - 1))


def _derivative(
    where: Where, place: str, origin: Origin | None, forward: Callable[[], Pushes | None]
) -> Finding:
    found = f"{place}: the cotangent of {where.leaf} becomes NaN or infinite though all values are finite"
    pushes = forward()
    if pushes is not None and np.all(np.isfinite(pushes.derivative)):
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


def _inexact(state: State) -> list[Any]:
    return jax.tree.leaves(tree.inexact(state))
