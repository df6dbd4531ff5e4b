"""One hypergradient."""

import equinox as eqx

from rfho._programs.tracing import is_traced
from rfho.hyper_gradients import AbstractHyperGradient, Estimate, ReverseHyperGradient
from rfho.problem.problem import Problem
from rfho.problem.validate import validate
from rfho.typing import Hyper


def hyper_gradient(
    problem: Problem, hyper: Hyper, method: AbstractHyperGradient | None = None
) -> Estimate:
    """One estimate of f(λ) and ∇f(λ), from the start of training.

    Args:
        problem: what is tuned.
        hyper: λ, a pytree of floating-point arrays or numbers.
        method: how; `ReverseHyperGradient` by default. Online methods give their first estimate.

    Returns:
        `Estimate(value, hypergradient, aux)`. Compiled once per problem structure and method.

    Raises:
        TypeError, ValueError: problem and hyperparameters do not fit each other, see
            `rfho.validate`.
        HyperGradientError: the method itself says that its estimate is useless.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=1
        ... )
        >>> float(rfho.hyper_gradient(problem, {"lr": 0.1}).hypergradient["lr"])
        2.0
    """
    method = ReverseHyperGradient() if method is None else method
    estimate = estimate_once(problem, validate(problem, hyper), method)
    _complain(method, estimate)
    return estimate


def estimate_once(problem: Problem, hyper: Hyper, method: AbstractHyperGradient) -> Estimate:
    """The first estimate of ``method``, compiled."""
    once = _estimate_once if method.driven_from_python else _estimate_once_compiled
    return once(problem, hyper, method)


def _estimate_once(problem: Problem, hyper: Hyper, method: AbstractHyperGradient) -> Estimate:
    return method.estimate(problem, hyper, method.init(problem, hyper))[0]


_estimate_once_compiled = eqx.filter_jit(_estimate_once)


def _complain(method: AbstractHyperGradient, estimate: Estimate) -> None:
    stats = estimate.aux.stats
    if any(map(is_traced, stats.values())):
        return
    complaint = method.complaint({name: float(number) for name, number in stats.items()})
    if complaint is not None:
        raise complaint
