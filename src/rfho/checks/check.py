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

from rfho._engines.forward import push_steps, read_along, start
from rfho._engines.reverse import roll
from rfho._programs import trees as tree
from rfho.checks.attempt import NoDerivative, attempted
from rfho.checks.finite_differences import Verdict, derivative, judged, rounding_of, settled
from rfho.checks.line import Line, line_through
from rfho.checks.second_order import second_order
from rfho.checks.slopes import Slope
from rfho.checks.traced import refuse_traced
from rfho.domains import Reals
from rfho.errors import HyperGradientError, Result, positive_int
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    Mode,
    ReverseHyperGradient,
)
from rfho.hyper_gradients.once import estimate_once, placed
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree, Scalar


class Along(NamedTuple):
    """The derivative of f along one direction of λ.

    Attributes:
        direction: d, in the structure of λ: a step of 0.1 changes no leaf by much more than a tenth, and
            stays inside the domain; at its edge d leads inwards, and differences are one-sided.
        by_method: ⟨∇f, d⟩ by the method under test.
        by_other: the same by the other method; NaN where it has no derivative.
        by_differences: the same by finite differences.
        error: the error bar of ``by_differences``.
        verdict: the method against finite differences.
        other_verdict: the other method against finite differences.
    """

    direction: Hyper
    by_method: float
    by_other: float
    by_differences: float
    error: float
    verdict: Verdict
    other_verdict: Verdict


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

    def __str__(self) -> str:
        agreeing = sum(one.verdict is Verdict.AGREES for one in self.along)
        lines = [f"agrees with finite differences along {agreeing} of {len(self.along)} directions"]
        for one in self.along:
            of_differences = f"{one.by_differences:+.6g} ± {one.error:.1g} by differences"
            lines.append(
                f"  {one.by_method:+.6g} by the method, {one.by_other:+.6g} by the other, {of_differences}"
            )
        doubtful = [slope for slope in self.second_order if slope.verdict is not Verdict.AGREES]
        lines += [f"second derivative by {slope.path}: {slope.verdict.value}" for slope in doubtful]
        if self.second_order and not doubtful:
            lines.append("second derivatives of the inner loss agree too")
        return "\n".join(lines)


def check_hyper_gradient(
    problem: AbstractMoment,
    hyper: Hyper,
    method: AbstractHyperGradient | None = ReverseHyperGradient(),
    *,
    against: AbstractHyperGradient | None = None,
    domain: PyTree = Reals(),
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
        hyper: λ, where to check; best away from kinks.
        method: under test.
        against: the other method; by default forward mode along the drawn directions alone, or
            `ReverseHyperGradient` if the method under test is forward itself.
        domain: a domain, or a tree prefix of ``hyper`` with domains, which no difference leaves: `Fixed`
            leaves are not learned, and the edge has one side.
        directions: how many random directions. Each costs up to 36 training runs.
        key: a JAX random key, or an int as its seed.
        throw: raise if the check is not passed.

    Returns:
        A `Check`.

    Raises:
        TypeError, ValueError: the arguments do not fit each other, or are being traced by JAX.
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
    refuse_traced((problem, hyper), "check_hyper_gradient")
    problem, free, space = placed(problem, hyper, domain)
    for_hyper, for_loss = jax.random.split(tree.as_key(key, "check_hyper_gradient"))
    estimate = estimate_once(problem, free, method)
    refuse_traced(estimate, "check_hyper_gradient")
    lines = [line_through(space, free, each) for each in jax.random.split(for_hyper, directions)]
    drawn = [line.velocity for line in lines]
    others = _by_other(problem, free, drawn, method=method, against=against)
    along = tuple(
        _along(problem, free, line, gradient=estimate.hypergradient, by_other=other)
        for line, other in zip(lines, others, strict=True)
    )
    findings = second_order(problem, free, space, key=for_loss)
    sound = all(finding.verdict is not Verdict.DISAGREES for finding in findings)
    agrees = sound and all(one.verdict is Verdict.AGREES for one in along)
    check = Check(agrees, along, findings)
    if throw and not agrees:
        raise _error(check, type(method).__name__)
    return check


def _along(
    problem: AbstractMoment, hyper: Hyper, line: Line, *, gradient: Hyper, by_other: float
) -> Along:
    direction = line.velocity
    parts = _products(gradient, direction)
    by_method, scale = sum(parts), sum(map(abs, parts))
    rounding = rounding_of((hyper, jax.eval_shape(problem.init, hyper)))
    value = lambda h: float(_value(problem, hyper, line, jnp.asarray(h)))  # noqa: E731
    found, edge = derivative(value, rounding, one_sided=line.one_sided), line.one_sided
    found, verdict = settled(value, by_method, found, scale, rounding=rounding, one_sided=edge)
    other = judged(by_other, found, scale, rounding=rounding)
    other = Verdict.UNDECIDED if math.isnan(by_other) else other
    return Along(direction, by_method, by_other, found.value, found.error, verdict, other)


@eqx.filter_jit
def _value(problem: AbstractMoment, hyper: Hyper, line: Line, step: Array) -> Scalar:
    """f(λ(h)); of several objectives the sum, each moved along the leaves that follow it."""
    owner = problem.objective_of(hyper)

    def moved(index: int) -> Hyper:
        along = lambda there, here, own: there if own == index else here  # noqa: E731
        return jax.tree.map(along, line.at(step), hyper, owner)

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
    forward = method.mode is Mode.FORWARD
    if against is None and not forward and not problem.several_objectives:
        pushed = attempted(lambda: _pushed(problem, hyper, directions))
        missing = [math.nan] * len(directions)
        return missing if isinstance(pushed, NoDerivative) else pushed.tolist()
    if against is None:
        against = ReverseHyperGradient() if forward else ForwardHyperGradient()
    other = attempted(lambda: estimate_once(problem, hyper, against).hypergradient)
    known = not isinstance(other, NoDerivative)
    return [sum(_products(other, each)) if known else math.nan for each in directions]


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
        return HyperGradientError(
            Result.DISAGREES,
            f"the gradient of the inner loss changes with {paths} otherwise than its own derivative says: "
            f"{wrong[0]}. Look for a stop_gradient, a custom_vjp or a rounding on the way from there to the loss",
        )
    bad = [one for one in check.along if one.verdict is Verdict.DISAGREES]
    if not bad:
        return HyperGradientError(Result.UNDECIDED, _undecided(check, method))
    one = bad[0]
    return HyperGradientError(
        Result.DISAGREES,
        f"along a random direction {method} says {one.by_method:.6g}, the other method {one.by_other:.6g}, "
        f"finite differences {_bar(one)}. {_because(one, method)}",
    )


def _because(one: Along, method: str) -> str:
    if one.other_verdict is Verdict.AGREES:
        return f"The other method is right, so {method} is biased, or wrong for this problem"
    if math.isnan(one.by_other):
        return "There is no other mode to compare with: rfho.diagnose looks for the place"
    if math.isclose(one.by_method, one.by_other, rel_tol=1e-3):
        return (
            "The two methods agree with each other, so f itself is at fault here: chaotic (lower the rate, shorten "
            "the horizon), with kinks or rounding, or with a derivative that is not its own (a stop_gradient, a "
            "custom_vjp): rfho.diagnose says which"
        )
    return f"{method} is biased, or wrong for this problem"


def _undecided(check: Check, method: str) -> str:
    one = next(one for one in check.along if one.verdict is Verdict.UNDECIDED)
    return (
        f"along a random direction {method} says {one.by_method:.6g} and finite differences {_bar(one)}: "
        "the error bar is too wide to decide. Switch on jax_enable_x64 with float64 data; if it is on, "
        "look for kinks or rounding in f, or shorten the horizon"
    )


def _bar(found: Along) -> str:
    return f"{found.by_differences:.6g} ± {found.error:.1g}"
