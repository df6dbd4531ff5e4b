"""The promises of a method: structures, exactness, purity, and its place in an outer loop."""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx

from rfho.hyper_gradients import AbstractHyperGradient
from rfho.testing.base import (
    kept,
    need_double_precision,
)
from rfho.testing.family import SETTINGS, Family, Train, gradient_descent
from rfho.testing.method_promises import METHOD_PROMISES
from rfho.testing.method_trial import MethodTrial


def check_method(
    method: AbstractHyperGradient,
    *,
    tolerance: float | None = 1e-6,
    train: Train = gradient_descent,
    settings: dict[str, float] = SETTINGS,
    horizon: int = 4,
    learn_start: bool = True,
    misuse: Iterable[Callable[[], object]] = (),
    promises: Iterable[Callable[[MethodTrial], None]] = METHOD_PROMISES,
) -> tuple[str, ...]:
    """Checks that a method keeps every promise of ``promises`` that applies to it.

    The problems are least squares with three parameters on the whole batch, strongly convex, with
    hyperparameters that reach the objective by every way there is: through the initial parameters,
    the dynamics, the loss, and the objective itself.

    Args:
        method: yours.
        tolerance: how far its hypergradient may be from that of finite differences, relative to the
            larger of 1 and its entries; None for a biased or random method, of which exactness is
            not asked.
        train: makes dynamics of ``(loss, init, settings)``, where ``settings(hyper)`` gives a
            dictionary; momentum descent by default.
        settings: the names and values in that dictionary: hyperparameters of the dynamics.
        horizon: T.
        learn_start: whether the initial parameters are a hyperparameter too; not for a method that
            refuses those, as implicit ones must.
        misuse: functions without arguments that make the method with bad arguments: each must raise
            a TypeError or a ValueError.
        promises: those to check, all of them by default: while a method is being written, one is
            enough, and it is quicker.

    Returns:
        The names of the promises that were kept.

    Raises:
        ConformanceError: some were broken; the message lists all of them.
        RuntimeError: JAX is not set to double precision.

    Example:
        >>> import jax, rfho
        >>> from rfho.testing import check_method
        >>> jax.config.update("jax_enable_x64", True)
        >>> kept = check_method(rfho.hyper_gradients.ForwardHyperGradient())
        >>> "explicit_dependence_is_followed" in kept
        True
    """
    need_double_precision()
    family = Family(train, settings, horizon, learn_start)
    problem, hyper = family.problem(), family.hyper()
    count = _Count()
    compiled = eqx.filter_jit(count.counted(method.estimate))
    start = eqx.filter_jit(method.init)(problem, hyper)
    first, after = compiled(problem, hyper, start)
    before_second = count.traces
    second, last = compiled(problem, hyper, after)
    trial = MethodTrial(
        method,
        family,
        problem,
        hyper,
        tolerance,
        carries=(start, after, last),
        estimates=(first, second, compiled(problem, hyper, start)[0]),
        traced=(before_second, count.traces),
        compiled=compiled,
        misuse=tuple(misuse),
    )
    return kept(promises, trial, type(method).__name__)


class _Count:
    """Counts how often a function is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        return counting
