"""Is the hypergradient the derivative of f? Finite differences decide.

Forward and reverse mode rest on the same derivative rules, so that their agreement proves little: in
a chaotic regime both give 1e56 where f hardly moves, and a layer that stops a gradient on its way
misleads both. The check compares, along random directions d,

    ⟨∇f(λ), d⟩    with    lim (f(λ + h d) - f(λ - h d)) / 2h,

and one level below, where most faults arise, the second derivatives of the inner loss with differences
of its gradient: v·∇²L u against lim v·(∇L(w + h u) - ∇L(w - h u)) / 2h, for one leaf u at a time.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho._engines.forward import push_steps, read_along, start
from rfho._engines.reverse import roll
from rfho.checks.finite_differences import (
    Verdict,
    balanced_direction,
    derivative,
    judged,
    rounding_of,
)
from rfho.checks.second_order import second_order
from rfho.checks.slopes import Slope
from rfho.errors import HyperGradientError, Result, positive_int
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
)
from rfho.hyper_gradients.once import estimate_once
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment
from rfho.problem.validate import validate
from rfho.typing import Hyper, Scalar


class Along(NamedTuple):
    """The derivative of f along one direction of λ.

    Attributes:
        direction: d, in the structure of λ, scaled so that a step of 0.1 changes no leaf by more than
            a tenth (see `rfho.finite_differences.balanced_direction`).
        by_method: ⟨∇f, d⟩ by the method under test.
        by_other: the same by the other method.
        by_differences: the same by finite differences.
        error: the error bar of ``by_differences``.
        verdict: the method against finite differences.
    """

    direction: Hyper
    by_method: float
    by_other: float
    by_differences: float
    error: float
    verdict: Verdict


class Check(NamedTuple):
    """What `check_hyper_gradient` found.

    Attributes:
        agrees: every direction was decided and agrees, and no second derivative disagrees.
        along: one entry per direction.
        second_order: one entry per leaf of the parameters and λ; empty unless the dynamics is a
            `Descent`.
    """

    agrees: bool
    along: tuple[Along, ...]
    second_order: tuple[Slope, ...]


def check_hyper_gradient(
    problem: AbstractMoment,
    hyper: Hyper,
    method: AbstractHyperGradient | None = None,
    *,
    against: AbstractHyperGradient | None = None,
    directions: int = 3,
    key: Array | int = 0,
    throw: bool = True,
) -> Check:
    """Checks a hypergradient by finite differences, by another method, and one derivative below.

    Finite differences with their own error bar decide; the other method is there for comparison.
    In float32 the error bars are wide and the verdict is easily `Verdict.UNDECIDED`: switch on
    ``jax_enable_x64`` and give the data as float64 for a check worth its name. A biased method
    (truncated, real-time) shows its bias, which is no fault of the problem.

    Args:
        problem: what is tuned.
        hyper: λ, where to check; best away from kinks and from the boundary of what f can take.
        method: under test; `ReverseHyperGradient` by default.
        against: the other method; by default forward mode along the drawn directions alone, or
            `ReverseHyperGradient` if the method under test is forward itself.
        directions: how many random directions. Each costs up to 36 training runs.
        key: a JAX random key, or an int as its seed.
        throw: raise if the check is not passed.

    Returns:
        A `Check`.

    Raises:
        TypeError, ValueError: the arguments do not fit each other.
        HyperGradientError: with `Result.DISAGREES` or `Result.UNDECIDED`, if ``throw``.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w**2, train=None, valid=None, horizon=5
        ... )
        >>> rfho.check_hyper_gradient(problem, {"lr": 0.1}).agrees
        True
    """
    method = ReverseHyperGradient() if method is None else method
    positive_int(directions, "directions", "check_hyper_gradient")
    hyper = tree.as_hyper(hyper)
    validate(problem, hyper)
    key = tree.as_key(key, "check_hyper_gradient")
    for_hyper, for_loss = jax.random.split(key)
    drawn = [balanced_direction(hyper, each) for each in jax.random.split(for_hyper, directions)]
    gradient = estimate_once(problem, hyper, method).hypergradient
    others = _by_other(problem, hyper, drawn, method=method, against=against)
    along = tuple(
        _along(problem, hyper, gradient, direction=direction, by_other=other)
        for direction, other in zip(drawn, others, strict=True)
    )
    findings = second_order(problem, hyper, for_loss)
    sound = all(finding.verdict is not Verdict.DISAGREES for finding in findings)
    agrees = sound and all(one.verdict is Verdict.AGREES for one in along)
    check = Check(agrees, along, findings)
    if throw and not agrees:
        raise _error(check, type(method).__name__)
    return check


def _along(
    problem: AbstractMoment, hyper: Hyper, gradient: Hyper, *, direction: Hyper, by_other: float
) -> Along:
    parts = _products(gradient, direction)
    by_method = sum(parts)
    rounding = rounding_of((hyper, jax.eval_shape(problem.init, hyper)))
    found = derivative(lambda h: float(_value(problem, hyper, direction, jnp.asarray(h))), rounding)
    verdict = judged(by_method, found, sum(map(abs, parts)), rounding=rounding)
    return Along(direction, by_method, by_other, found.value, found.error, verdict)


@eqx.filter_jit
def _value(problem: AbstractMoment, hyper: Hyper, direction: Hyper, step: Array) -> Scalar:
    """f(λ + h d); of several objectives the sum, each moved along the leaves that follow it."""
    owner = problem.objective_of(hyper)

    def moved(index: int) -> Hyper:
        along = lambda leaf, d, own: leaf + (own == index) * step.astype(leaf.dtype) * d  # noqa: E731
        return jax.tree.map(along, hyper, direction, owner)

    def value(index: int) -> Scalar:
        at = moved(index)
        state = roll(problem, at, problem.init(at), span=Span(0, problem.horizon))
        return jax.tree.leaves(problem.evaluate(problem.dynamics.output(state), at))[index]

    return sum((value(index) for index in set(jax.tree.leaves(owner))), jnp.zeros(()))


def _by_other(
    problem: AbstractMoment,
    hyper: Hyper,
    directions: list[Hyper],
    *,
    method: AbstractHyperGradient,
    against: AbstractHyperGradient | None,
) -> list[float]:
    is_forward = isinstance(method, ForwardHyperGradient | RealTimeHyperGradient)
    if against is None and not is_forward and not problem.several_objectives:
        return _pushed(problem, hyper, directions).tolist()
    if against is None:
        against = ReverseHyperGradient() if is_forward else ForwardHyperGradient()
    gradient = estimate_once(problem, hyper, against).hypergradient
    return [sum(_products(gradient, direction)) for direction in directions]


@eqx.filter_jit
def _pushed(problem: AbstractMoment, hyper: Hyper, directions: list[Hyper]) -> Array:
    """Forward mode along these directions alone, however many hyperparameters there are."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *directions)
    pushed = start(problem, hyper, stacked)
    pushed = push_steps(problem, hyper, pushed, directions=stacked, count=problem.horizon)
    return read_along(problem, hyper, pushed, directions=stacked)[1]


def _products(gradient: Hyper, direction: Hyper) -> list[float]:
    products = jax.tree.map(lambda g, d: float(jnp.sum(g * d)), gradient, direction)
    return jax.tree.leaves(products)


def _error(check: Check, method: str) -> HyperGradientError:
    wrong = [finding for finding in check.second_order if finding.verdict is Verdict.DISAGREES]
    if wrong:
        paths = ", ".join(finding.path for finding in wrong)
        first = wrong[0]
        return HyperGradientError(
            Result.DISAGREES,
            f"the gradient of the inner loss changes with {paths} otherwise than its own derivative says: "
            f"{first.by_derivative:.6g} along {first.path}, by finite differences {_bar(first)}. Look for a "
            "stop_gradient, a custom_vjp or a rounding on the way from there to the loss",
        )
    bad = [one for one in check.along if one.verdict is Verdict.DISAGREES]
    if not bad:
        return HyperGradientError(Result.UNDECIDED, _undecided(check, method))
    one = bad[0]
    both = math.isclose(one.by_method, one.by_other, rel_tol=1e-3)
    because = (
        "The two methods agree with each other, so f itself is at fault here: chaotic (lower the rate, "
        "shorten the horizon), or with kinks, rounding or a stop_gradient in it"
        if both
        else f"{method} is biased, or wrong for this problem"
    )
    return HyperGradientError(
        Result.DISAGREES,
        f"along a random direction {method} says {one.by_method:.6g}, the other method {one.by_other:.6g}, "
        f"finite differences {_bar(one)}. {because}",
    )


def _undecided(check: Check, method: str) -> str:
    one = next(one for one in check.along if one.verdict is Verdict.UNDECIDED)
    return (
        f"along a random direction {method} says {one.by_method:.6g} and finite differences {_bar(one)}: "
        "the error bar is too wide to decide. Switch on jax_enable_x64 with float64 data; if it is on, "
        "look for kinks or rounding in f, or shorten the horizon"
    )


def _bar(found: Along | Slope) -> str:
    return f"{found.by_differences:.6g} ± {found.error:.1g}"
