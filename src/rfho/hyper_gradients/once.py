"""One hypergradient."""

import warnings
from typing import Any

import equinox as eqx

from rfho._programs import trees as tree
from rfho._programs.tracing import any_traced
from rfho.domains import Reals
from rfho.domains.space import Space
from rfho.errors import HyperGradientError, Result
from rfho.files import refuse_what_has_no_room
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode
from rfho.hyper_gradients.precision import in_doubt
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.hyper_gradients.room import refuse_what_cannot_fit
from rfho.memory.shards import to_host
from rfho.problem.moment import AbstractMoment
from rfho.problem.validate import validate
from rfho.typing import Hyper, Params, PyTree


def hyper_gradient(
    problem: AbstractMoment,
    hyper: Hyper,
    method: AbstractHyperGradient | None = ReverseHyperGradient(),
    *,
    domain: PyTree = Reals(),
    throw: bool = True,
) -> Estimate:
    """One estimate of f(λ) and ∇f(λ), from the start of training.

    Args:
        problem: what is tuned.
        hyper: λ, a pytree whose floating-point arrays and numbers are learned.
        method: how; None is the default too. Online methods give their first estimate.
        domain: a domain, or a tree prefix of ``hyper`` with domains: `Fixed` leaves are not learned, the
            others must lie in theirs.
        throw: raise what is wrong with the estimate; otherwise return it as it is.

    Returns:
        `Estimate(value, hypergradient, aux)`; the hypergradient is None where ``hyper`` is not learned.
        Compiled once per problem structure and method; under `jax.jit`, `jax.vmap` and `jax.grad` it is part
        of the program around it, and nothing is raised about values.

    Raises:
        TypeError, ValueError: problem and hyperparameters do not fit each other; before anything runs.
        HyperGradientError: the value or the hypergradient is not finite, or the method itself says that its
            estimate is useless.

    Warns:
        UserWarning: the method has a `Precision`, in which signs are in doubt.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, horizon=1)
        >>> float(rfho.hyper_gradient(problem, {"lr": 0.1}).hypergradient["lr"])
        2.0
    """
    method = ReverseHyperGradient() if method is None else method
    moment, free, _ = placed(problem, hyper, domain)
    estimate = estimate_once(moment, free, method)
    if throw and not any_traced(estimate):
        raise_if_useless(method, estimate)
        doubt = in_doubt(estimate.aux.stats, free)
        if doubt is not None:
            warnings.warn(doubt, stacklevel=2)
    return estimate


def placed(
    problem: AbstractMoment, hyper: Hyper, domain: PyTree
) -> tuple[AbstractMoment, Hyper, Space]:
    """The problem as one of the learned leaves of ``hyper`` alone, those leaves, and where they may lie.

    Raises:
        TypeError, ValueError: ``problem`` is none, or ``hyper`` and ``domain`` do not fit each other.
    """
    if not isinstance(problem, AbstractMoment):
        raise TypeError(f"got a {type(problem).__name__} where a rfho.Problem was expected")
    space = Space.of(domain, hyper)
    free, rest = space.split(hyper)
    free = tree.as_hyper(free)
    space.check(free)
    # A moment has its rest already, and is given what is learned alone.
    moment = problem if problem.rest is not None else problem.at(problem.k, rest)
    return moment, free, space


def estimate_once(problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient) -> Estimate:
    """The first estimate of ``method``, compiled; that problem and λ fit is looked at once per program."""
    if not method.driven_from_python:
        return _estimate_once(problem, hyper, method)
    _fits(problem, hyper, method)
    refuse_what_has_no_room(method.written(problem, hyper, None))
    return method.estimate(problem, hyper, method.init(problem, hyper))[0]


@eqx.filter_jit
def _estimate_once(
    problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient
) -> Estimate:
    _fits(problem, hyper, method)
    estimate, _ = method.estimate(problem, hyper, method.init(problem, hyper))
    return estimate._replace(aux=estimate.aux._replace(state=None))


@eqx.filter_jit
def _fits(problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient) -> None:
    # The first estimate of a forward method that goes on has come from s_0; later ones have not.
    begins = method.mode is Mode.FORWARD and method.limit(problem) is not None
    validate(problem, hyper, reaches_start=begins or method.reaches_start(problem))
    refuse_what_cannot_fit(problem, hyper, method)


def raise_if_useless(method: AbstractHyperGradient, estimate: Estimate) -> None:
    """Raises what is wrong with an estimate whose values are known.

    Raises:
        HyperGradientError: the method complains, or a value is not finite.
    """
    value, gradient, stats = to_host((estimate.value, estimate.hypergradient, estimate.aux.stats))
    complaint = method.complaint({name: float(number) for name, number in stats.items()})
    params: Any = estimate.aux.params
    error = complaint or not_finite(value, gradient, params, at="at these hyperparameters")
    if error is not None:
        raise error


def not_finite(
    value: PyTree, gradient: Hyper, params: Params, *, at: str
) -> HyperGradientError | None:
    """The error about an estimate with a NaN or an infinity; None if there is none.

    Args:
        value: the objective, on the host.
        gradient: the hypergradient, on the host.
        params: they say whether training itself diverged.
        at: where that was, for the message.
    """
    bad = tree.first_non_finite(value, "objective")
    if bad is not None:
        where = tree.first_non_finite(params, "params")
        because = f"; {where} is not finite either, so training itself diverged" if where else ""
        return HyperGradientError(
            Result.NON_FINITE_VALUE,
            f"{bad} is {value} {at}{because}: start from a smaller rate, shorten the horizon, or narrow "
            "the domain; rfho.diagnose says where it began",
        )
    bad = tree.first_non_finite(gradient, "hypergradient")
    if bad is None:
        return None
    return HyperGradientError(
        Result.NON_FINITE_HYPERGRADIENT,
        f"{bad} is not finite {at} though the objective is: a derivative is infinite (√ or a norm at 0: "
        "add a small number under the root, and in steps that you write yourself put rfho.optim.safe_roots around "
        "the optimiser) or the adjoint overflowed (lower the rate of training, and that of the method if it has "
        "one: below 2 by the largest curvature); rfho.diagnose names the step and the leaf",
    )
