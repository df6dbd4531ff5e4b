r"""The derivative through all steps so far, distilled into that through one (HyperDistill, arXiv 2110.02508).

.. math:: \sum_{i \le t} \alpha_t A_t \cdots A_{i+1} B_i \approx
          \theta\, \frac{1 - \gamma^t}{1 - \gamma}\, v_t, \quad
          v_t = \alpha_t\, \partial_\lambda \Phi(s^*_t, \lambda, b^*_t)

.. math:: s^*_t = p_t s^*_{t-1} + (1 - p_t) s_{t-1}, \quad p_t = \frac{\gamma - \gamma^t}{1 - \gamma^t}; \quad
          b^*_t = b^*_{t-1} \text{ with probability } p_t, \text{ else } b_t

The scale θ is fitted by least squares to a sweep back along the straight line from s_0 to s_t (DrMAD, arXiv
1601.00917).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from rfho._engines.reverse import chain_of
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.dynamics import Keep
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode, aux_of
from rfho.problem.moment import AbstractMoment, select
from rfho.typing import Hyper, Params, PyTree, Scalar, State, Step


class Point(NamedTuple):
    """Where the one product is taken.

    Attributes:
        state: s*.
        batch: the step whose batch is b*.
    """

    state: State
    batch: Int[Array, ""]


class Scale(NamedTuple):
    """What was fitted last.

    Attributes:
        theta: θ.
        unexplained: what the product cannot express of the sums that it was fitted to, as a share of their norm.
    """

    theta: Float[Array, ""]
    unexplained: Float[Array, ""]


class DistilledRun(NamedTuple):
    """The carry: one training run, and what stands for its past.

    Attributes:
        begin: s_0.
        state: s_t, never reset.
        t: the steps done so far.
        point: s*_t and b*_t.
        scale: θ.
    """

    begin: State
    state: State
    t: Int[Array, ""]
    point: Point
    scale: Scale


class DistilledHyperGradient(AbstractHyperGradient):
    r"""Hypergradients while training goes on, of all steps so far at the price of one product (HyperDistill).

    As `T1T2HyperGradient` and `OneStepHyperGradient` it costs little whatever the number of hyperparameters, and it
    does not forget the steps before the last: their sum points about where one product at a mean of the past
    states does, and its length is learned. Whatever moves a step has such a hypergradient, rates included.

    Args:
        discount: γ in [0, 1), how slowly the past fades, for the mean of states and for the length; 0 is the last
            step alone, times θ. About what a step of training leaves of an error: where γ was much larger, on
            quadratics, the estimate was worse than that of the last step alone.
        key: a JAX random key, or an int as its seed, of the draws of b*.
        every: Δ, training steps between estimates.
        scale: θ, a number; None, the default, to have it fitted after 1, 2, 4, 8, … estimates.

    Cost:
        Δ steps, one product with a step's derivative, and one gradient of the objective. A fit after t steps takes
        2 t such products more, over a whole run up to four for each step. Memory of four states. Biased: by what one
        product cannot express, by states on a straight line where θ is fitted, and as λ moves while training goes
        on.

    Aux:
        - ``stats["scale"]``: θ;
        - ``stats["unexplained"]``: of the sums that θ was fitted to last, the share that the product cannot
          express, in norm. It is no error of the estimate, as those sums are of interpolated states and of an
          earlier λ: none is stated.
        - ``stats["t"]``: steps done.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.2), init=jnp.zeros(()))
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 0.5) ** 2, horizon=400)
        >>> method = rfho.DistilledHyperGradient(0.9, key=0)
        >>> tuned = rfho.tune(problem, {"l2": 0.0}, method=method, optim=optax.sgd(0.05), steps=400)
        >>> round(float(tuned.hyper["l2"]), 1)  # w = 1 / (1 + l2)
        1.0

    References:
        Lee, Lee, Shin, Yang, Hospedales, Hwang, "Online hyperparameter meta-learning with hypergradient
        distillation", arXiv 2110.02508. Written from its formulas, not from its authors' program. Ours alone is that
        momentum and slots are averaged with the parameters, and that θ is fitted to the run so far, where the paper
        takes a run of its own from time to time.
    """

    discount: float = eqx.field(static=True)
    key: Array
    every: int = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)

    def __init__(
        self, discount: float, key: Array | int, *, every: int = 1, scale: float | None = None
    ) -> None:
        name = type(self).__name__
        if not isinstance(discount, float | int) or not 0 <= discount < 1:
            raise ValueError(f"{name} got discount={discount!r}, but it must be a number in [0, 1)")
        if scale is not None and not isinstance(scale, float | int):
            raise TypeError(
                f"{name} got scale={scale!r}, but it must be a number, or None to fit it"
            )
        self.discount = float(discount)
        self.key = tree.as_key(key, name)
        self.every = positive_int(every, "every", name)
        self.scale = scale

    @property
    def mode(self) -> Mode:
        """Reverse."""
        return Mode.REVERSE

    def reach(self, problem: AbstractMoment) -> int:
        """One step, which stands for all."""
        return 1

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """Training goes on: λ is moved long after s_0."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps and a product; while θ is fitted, four more for each step."""
        chain = chain_of(parts.problem, parts.hyper, Keep.STATES)
        count = 1 if self.scale is not None else 1 + 4 * self.every

        def product(state: State, cotangents: PyTree) -> PyTree:
            return _pulled(chain, cotangents, state, jnp.zeros((), jnp.int32))

        unknowns = parts.reading.by_state, parts.reading.by_hyper
        return parts.of_products(product, unknowns, count=count, vectors=4, steps=self.every)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> DistilledRun:
        """The start of the training run."""
        state, zero = problem.init(hyper), jnp.zeros((), jnp.int32)
        of = jnp.result_type(*jax.tree.leaves(hyper))
        theta = jnp.asarray(1.0 if self.scale is None else self.scale, of)
        return DistilledRun(state, state, zero, Point(state, zero), Scale(theta, 0 * theta))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: DistilledRun
    ) -> tuple[Estimate, DistilledRun]:
        """Δ further steps, then the product."""

        def one(_: Step, run: DistilledRun) -> DistilledRun:
            t, gamma = run.t + 1, self.discount
            # p_t = (γ - γ^t) / (1 - γ^t)
            keep = (gamma - gamma**t) / (1 - gamma**t)
            point = _mixed(
                keep, run.point, Point(run.state, run.t), key=jax.random.fold_in(self.key, t)
            )
            return run._replace(state=problem.step(run.state, hyper, run.t), t=t, point=point)

        run = jax.lax.fori_loop(0, self.every, one, carry)
        reading = problem.read(run.state, hyper)
        seed = reading.by_state
        if self.scale is None:
            count = run.t // self.every
            fit = lambda: self._fitted(problem, hyper, run, seed=seed)  # noqa: E731
            due = (count & (count - 1)) == 0
            run = run._replace(scale=jax.lax.cond(due, fit, lambda: run.scale))
        length = run.scale.theta * (1 - self.discount**run.t) / (1 - self.discount)
        product = tree.scale(length, _through(problem, hyper, seed, run.point))
        hypergradient = tree.add(select(problem, hyper, reading.by_hyper), product)
        stats = {"scale": run.scale.theta, "unexplained": run.scale.unexplained, "t": run.t}
        aux = aux_of(problem, run.state, stats)
        return Estimate(problem.values(reading.value), hypergradient, aux), run

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: DistilledRun
    ) -> tuple[PyTree, Params]:
        """The objective where the run stands."""
        params = problem.dynamics.output(carry.state)
        return problem.evaluate(params, hyper), params

    def limit(self, problem: AbstractMoment) -> int:
        """One training run of T steps."""
        return problem.horizon // self.every

    def _fitted(
        self, problem: AbstractMoment, hyper: Hyper, run: DistilledRun, *, seed: PyTree
    ) -> Scale:
        """θ from the sums over the last 1, 2, …, t steps, s each: Σ x y / Σ x²."""
        chain, gamma = chain_of(problem, hyper, Keep.STATES), self.discount
        zeros = jax.tree.map(jnp.zeros_like, problem.read(run.state, hyper).by_hyper)
        key, nothing = jax.random.fold_in(self.key, run.t), jnp.zeros_like(run.scale.theta)

        def one(i: Step, at: _Fit) -> _Fit:
            s, t = i + 1, run.t - 1 - i
            here = _between(run.begin, run.state, t / run.t)
            cotangents = _pulled(chain, at.cotangents, here, t)
            keep = jnp.asarray((1 - gamma**i) / (1 - gamma**s))
            point = _mixed(keep, at.point, Point(here, t), key=jax.random.fold_in(key, s))
            product = _through(problem, hyper, seed, point)
            whole = select(problem, hyper, cotangents[1])
            # x = ‖v‖ (1 - γ^s) / (1 - γ), y = ⟨v / ‖v‖, g⟩
            length = (1 - gamma**s) / (1 - gamma)
            more = (
                length * tree.dot(product, whole),
                length**2 * tree.dot(product, product),
                tree.dot(whole, whole),
            )
            along, squares, sums = (
                before + one.astype(before.dtype) for before, one in zip(at[2:], more, strict=True)
            )
            return _Fit(cotangents, point, along, squares, sums)

        first = _Fit((seed, zeros), Point(run.state, run.t), nothing, nothing, nothing)
        fit = jax.lax.fori_loop(0, run.t, one, first)
        theta = jnp.where(
            fit.squares > 0, fit.along / jnp.where(fit.squares > 0, fit.squares, 1), 1
        )
        explained = theta * fit.along / jnp.where(fit.sums > 0, fit.sums, 1)
        left = jnp.sqrt(jnp.maximum(jnp.where(fit.sums > 0, 1 - explained, 0), 0))
        return Scale(theta.astype(nothing.dtype), left.astype(nothing.dtype))


class _Fit(NamedTuple):
    """A sweep back: α and the sum so far, the point that stands for it, Σ x y, Σ x², and Σ ‖g‖²."""

    cotangents: PyTree
    point: Point
    along: Scalar
    squares: Scalar
    sums: Scalar


def _pulled(chain: PyTree, cotangents: PyTree, state: State, t: Step) -> PyTree:
    """(α A, λ̄ + α B) at a state."""
    return chain.pull_back(cotangents, state, chain.remember(state, t)[1], t)


def _through(problem: AbstractMoment, hyper: Hyper, seed: PyTree, point: Point) -> Hyper:
    """α B at a point, for each leaf of λ that of its own objective."""
    chain = chain_of(problem, hyper, Keep.STATES)
    zeros = jax.tree.map(jnp.zeros_like, problem.read(point.state, hyper).by_hyper)
    return select(problem, hyper, _pulled(chain, (seed, zeros), point.state, point.batch)[1])


def _mixed(keep: Scalar, old: Point, new: Point, *, key: Array) -> Point:
    """The mean of two states, and the batch of either at random; integers as in the new one."""
    (a, _), (b, rest) = tree.split(old.state), tree.split(new.state)
    mean = jax.tree.map(lambda x, y: (keep * x + (1 - keep) * y).astype(y.dtype), a, b)
    batch = jnp.where(jax.random.uniform(key) < keep, old.batch, new.batch)
    return Point(eqx.combine(mean, rest), batch)


def _between(begin: State, end: State, share: Scalar) -> State:
    """A state on the straight line; counters are rounded, and what is no number is as at the end."""

    def one(a: Array, b: Array) -> Array:
        if eqx.is_inexact_array(b):
            return (a + share * (b - a)).astype(b.dtype)
        counts = jnp.issubdtype(b.dtype, jnp.integer)
        return jnp.round(a + share * (b - a)).astype(b.dtype) if counts else b

    return jax.tree.map(one, begin, end)
