r"""Training, the linear system and λ move together, each by one step on one minibatch (SOBA, arXiv 2201.13409).

.. math:: w \leftarrow \Phi(w, \lambda, b), \quad
          q \leftarrow q + \rho\,(\partial_w E - \partial^2_{ww} L_b\, q), \quad
          h = \partial_\lambda E - \partial^2_{\lambda w} L_b\, q

All three are read at the same w, q and λ, so that one linearised gradient on one minibatch is enough.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.reverse import roll
from rfho._implicit.condition import AbstractCondition, Stationary
from rfho._programs import trees as tree
from rfho._programs.shared_products import SharedProducts
from rfho.choice.forecast import Forecast, Parts
from rfho.dynamics import AbstractDescent
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment, select
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State, Step

Schedule = float | Callable[[Step], Scalar | float]
"""A number, or a function of the outer step k = 0, 1, …"""

TOGETHER = SharedProducts()
"""Training, its derivative along q and other runs multiply the same batch: those products become one."""


class AdjointRun(NamedTuple):
    """The carry: one training run, and the solution of its linear system that follows it.

    Attributes:
        state: s_t, never reset.
        t: the batches seen so far.
        adjoint: q, with a leading axis if there are several objectives.
    """

    state: State
    t: Int[Array, ""]
    adjoint: PyTree


class AveragedRun(NamedTuple):
    """An `AdjointRun` and the running mean of what it gave.

    Attributes:
        run: training and q.
        mean: of the hypergradients so far, in the structure of λ.
    """

    run: AdjointRun
    mean: Hyper


class SingleLoopHyperGradient(AbstractHyperGradient):
    r"""Hypergradients from one minibatch each: training, its linear system and λ in a single loop.

    The method of choice for many examples and many hyperparameters: an outer step costs little more than
    a training step, whatever their numbers. It aims at the hypergradient of the *minimiser* on all of the
    data, as `ImplicitHyperGradient` does, and comes near it only as training and q do: let ``rate``, the
    inner rate and the outer one be small, or fall.

    Args:
        rate: ρ, of the steps of q; a number below 2 divided by the largest curvature, or a function of
            the outer step k.
        average: θ, the weight of the newest hypergradient in the running mean that is returned; a number
            in (0, 1] or a function of k. At 1, the default, there is no mean (SOBA); below it the noise
            of minibatches is averaged (MA-SOBA, arXiv 2306.12067), as momentum would.
        condition: what holds where training ends, made of a batch: `rfho.Stationary` or
            `rfho.FixedPoint`.

    Cost:
        One training step and one product with the Hessian on the same minibatch, and one gradient of the
        objective; memory of one linearised gradient, q and the mean. Biased, until all three have settled.
        The rate of training has no such hypergradient, and is refused.

    Aux:
        ``stats["residual"]``: ‖∂_wE - H_b q‖ / ‖∂_wE‖ and ``stats["stationarity"]``: ‖∂_wL_b‖, both on
        the minibatch, so that neither falls to 0 where minibatches disagree; ``stats["t"]``: batches seen.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * jnp.mean((w - batch) ** 2) + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.1), init=jnp.zeros(()))
        >>> stream = rfho.Stream(jnp.arange(3.0), size=1, key=0)
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: (w - 0.5) ** 2, train=stream, horizon=10
        ... )
        >>> method = rfho.SingleLoopHyperGradient(rate=0.1)
        >>> tuned = rfho.tune(problem, {"l2": 0.0}, method=method, optim=optax.sgd(0.1), steps=500)
        >>> bool(abs(tuned.hyper["l2"] - 1.0) < 0.2)  # w = 1 / (1 + l2)
        True

    References:
        Dagréou, Ablin, Vaiter, Moreau, "A framework for bilevel optimization that enables stochastic and
        global variance reduction algorithms", arXiv 2201.13409; Chen, Xiao, Balasubramanian, "Optimal
        algorithms for stochastic bilevel optimization under relaxed smoothness conditions", arXiv
        2306.12067.
    """

    rate: Schedule = eqx.field(static=True)
    average: Schedule = eqx.field(static=True, default=1.0)
    condition: Callable[[Batch], AbstractCondition] = eqx.field(static=True, default=Stationary)

    def __check_init__(self) -> None:
        check_schedule(self.rate, "rate", self)
        check_schedule(self.average, "average", self, at_most=1.0)
        check_condition(self.condition, self)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 does not move the point at which training ends."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """A step, a look, and a product."""
        return cost_of(self.condition, parts, steps=1, products=1)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> AveragedRun:
        """Training at its start, q = 0.

        Raises:
            TypeError, ValueError: the condition does not apply; see `rfho.Stationary`.
        """
        run = start_run(self.condition, problem, hyper)
        return AveragedRun(run, _zeros(hyper))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: AveragedRun
    ) -> tuple[Estimate, AveragedRun]:
        """One look at everything, then one step of everything."""
        run = carry.run
        batch = problem.train_batch(run.t)

        def everything(run: AdjointRun, hyper: Hyper) -> tuple[Look, State]:
            look = looked(self.condition(batch), problem, hyper, run=run)
            dynamics, whole = problem.dynamics, problem.whole(hyper)
            # The gradient is there already.
            if self.condition is Stationary and isinstance(dynamics, AbstractDescent):
                return look, dynamics.update(run.state, look.slope, whole)
            return look, dynamics.step(run.state, whole, batch)

        look, state = TOGETHER(everything)(run, hyper)
        # q ← q + ρ (v - H q)
        rate = at_step(self.rate, problem.k)
        adjoint = tree.add(run.adjoint, tree.scale(rate, look.residual))
        # The first of them is all there is of a mean.
        weight = jnp.where(run.t == 0, 1.0, at_step(self.average, problem.k))
        newer = tree.subtract(look.hypergradient, carry.mean)
        mean = tree.add(carry.mean, tree.scale(weight, newer))
        after = AdjointRun(state, run.t + 1, adjoint)
        aux = aux_of(problem, run.state, look.stats | {"t": after.t})
        return Estimate(look.value, mean, aux), AveragedRun(after, mean)

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: AveragedRun
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T more steps from where training stands."""
        return trained_further(problem, hyper, carry.run.state, carry.run.t)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


class Look(NamedTuple):
    """What one minibatch says where training stands.

    Attributes:
        value: the objectives.
        hypergradient: ∂_λE - (∂²_λwL_b) q, of each leaf's own objective.
        residual: ∂_wE - H_b q, with a leading axis if there are several objectives.
        slope: ∂_wL_b, or what else is to be 0.
        stats: how far training and q are from where they should be.
    """

    value: PyTree
    hypergradient: Hyper
    residual: PyTree
    slope: PyTree
    stats: dict[str, Scalar]


def cost_of(
    condition: Callable[[Batch], AbstractCondition], parts: Parts, *, steps: int, products: int
) -> Forecast:
    """What an estimate of so many steps and products costs."""

    def product(state: State, q: PyTree) -> PyTree:
        here = condition(parts.problem.train_batch(0))
        system = here.system(parts.problem, parts.hyper, state)
        return system.operator.apply(q), system.cross(q)

    unknowns = condition(None).unknowns(parts.reading.by_state)
    return parts.of_products(product, unknowns, count=products, vectors=4, steps=steps)


def start_run(
    condition: Callable[[Batch], AbstractCondition], problem: AbstractMoment, hyper: Hyper
) -> AdjointRun:
    """Training at its start and q = 0, once the condition is known to apply."""
    here = condition(problem.train_batch(0))
    here.check(problem, hyper)
    state = problem.init(hyper)
    shapes = jax.eval_shape(lambda: here.unknowns(problem.read(state, hyper).by_state))
    return AdjointRun(state, jnp.zeros((), jnp.int32), _zeros(shapes))


def looked(
    here: AbstractCondition, problem: AbstractMoment, hyper: Hyper, *, run: AdjointRun
) -> Look:
    """The hypergradient that q gives, and the residual of q: one linearisation, on the batch of ``here``."""
    system = here.system(problem, hyper, run.state)
    reading = problem.read(run.state, hyper)

    def one(seed: PyTree, by_hyper: Hyper, q: PyTree) -> tuple[Hyper, PyTree, Scalar]:
        residual = tree.subtract(seed, system.operator.apply(q))
        size = tree.norm(seed)
        relative = jnp.where(size > 0, tree.norm(residual) / jnp.where(size > 0, size, 1), 0)
        return tree.subtract(by_hyper, system.cross(q)), residual, relative

    one = jax.vmap(one) if problem.several_objectives else one
    seed = here.unknowns(reading.by_state)
    hypergradient, residual, relative = one(seed, reading.by_hyper, run.adjoint)
    stats = {"residual": jnp.max(relative), "stationarity": tree.norm(system.slope)}
    hypergradient = select(problem, hyper, hypergradient)
    return Look(problem.values(reading.value), hypergradient, residual, system.slope, stats)


def trained_further(
    problem: AbstractMoment, hyper: Hyper, state: State, t: Step
) -> tuple[PyTree, Params]:
    """f(λ) and w after T more steps, from ``state`` and batch ``t`` on."""
    state = roll(problem.later(t), hyper, state, span=Span(0, problem.horizon))
    params = problem.dynamics.output(state)
    return problem.evaluate(params, hyper), params


def _zeros(like: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def at_step(schedule: Schedule, k: Step) -> Scalar | float:
    """The number at outer step ``k``."""
    return schedule(k) if callable(schedule) else schedule


def check_schedule(
    value: Schedule, name: str, of: AbstractHyperGradient, *, at_most: float = float("inf")
) -> None:
    """Refuses what is neither a function of k nor a number above 0.

    Raises:
        ValueError: the message names the argument.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not callable(value) and not (number and 0 < value <= at_most and value < float("inf")):
        room = "above 0" if at_most == float("inf") else f"above 0 and at most {at_most:g}"
        raise ValueError(
            f"{type(of).__name__} got {name}={value!r}, but it must be a number {room}, or a function of the "
            "outer step k"
        )


def check_condition(condition: Callable[..., AbstractCondition], of: AbstractHyperGradient) -> None:
    """Refuses a condition that is made already: it is made anew of each batch.

    Raises:
        TypeError: it is no function.
    """
    if not callable(condition):
        raise TypeError(
            f"{type(of).__name__} got condition={condition!r}, but it must be what makes a condition of a batch: "
            "write condition=rfho.Stationary, without brackets"
        )
