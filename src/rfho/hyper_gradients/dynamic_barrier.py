r"""Parameters and λ descend the objective together; a barrier keeps training done (BOME, arXiv 2209.08709).

.. math:: \hat q = L(w, \lambda) - L(z, \lambda), \quad z = \text{Δ training steps from } w, \qquad
          \mu = \max\Bigl(\eta - \frac{\langle \nabla E, \nabla \hat q \rangle}{\|\nabla \hat q\|^2},\, 0\Bigr)

.. math:: w \leftarrow w - \xi\,(\partial_w E + \mu\, \partial_w L(w)), \quad
          h = \partial_\lambda E(w) + \mu\,(\partial_\lambda L(w) - \partial_\lambda L(z))

Gradients are by (w, λ) together, with z taken as given.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.reverse import roll
from rfho._implicit.penalty import Slopes, check_penalty, each, read_own, slopes_of, spread
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of
from rfho.hyper_gradients.single_loop import Schedule, at_step, check_schedule, trained_further
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment, select
from rfho.typing import Hyper, Params, PyTree, Scalar, State


class BarredRun(NamedTuple):
    """The carry: the run whose parameters descend the objective.

    Attributes:
        state: w, and the slots of the training steps; with a leading axis if there are several objectives.
        t: the batches seen so far.
    """

    state: State
    t: Int[Array, ""]


class DynamicBarrierHyperGradient(AbstractHyperGradient):
    r"""Hypergradient without second derivatives, from parameters that descend the objective too (BOME).

    Where `FirstOrderHyperGradient` has a penalty that must be chosen, here the multiplier μ is chosen at
    every step, as small as keeps w falling towards the minimum of the loss. One run instead of three.

    Args:
        rate: ξ, of the steps of w; a number or a function of the outer step k.
        every: Δ, training steps from w to z for each estimate.
        barrier: η, how fast w is to fall towards the minimum; between 0 and 1 as a rule.

    Cost:
        Δ + 2 gradients of the loss and one of the objective, and no product with a Hessian; memory of two
        states. Biased: right where ``stats["residual"]`` is 0 and z has arrived, wrong by
        (∂²_λwL) H⁻¹ (∂_wE + μ ∂_wL) near there. The rate of training has no such hypergradient, and is
        refused.

    Aux:
        - ``stats["residual"]``: ‖∂_wE + μ ∂_wL(w)‖ / ‖∂_wE‖;
        - ``stats["multiplier"]``: μ; ``stats["stationarity"]``: ‖∂_wL(w)‖, on a minibatch;
        - ``stats["t"]``: batches seen.

        With several objectives each has a w of its own; the largest of each is told, and ``params`` are
        those of the first.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.4), init=jnp.array(0.6))
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 0.5) ** 2, horizon=60)
        >>> method = rfho.DynamicBarrierHyperGradient(rate=0.05, every=10)
        >>> tuned = rfho.tune(problem, {"l2": 0.5}, method=method, optim=optax.sgd(0.05), steps=600)
        >>> round(float(tuned.hyper["l2"]), 1)  # w = 1 / (1 + l2)
        1.0

    References:
        Liu, Ye, Wright, Stone, Liu, "BOME! Bilevel optimization made easy: a simple first-order approach",
        arXiv 2209.08709.
    """

    rate: Schedule = eqx.field(static=True)
    every: int = eqx.field(static=True)
    barrier: float = eqx.field(static=True, default=0.5)

    def __check_init__(self) -> None:
        check_schedule(self.rate, "rate", self)
        positive_int(self.every, "every", type(self).__name__)
        check_schedule(self.barrier, "barrier", self)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 does not move the point at which training ends."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps and two gradients."""
        problem, hyper = parts.problem, parts.hyper

        def two(state: State, other: State) -> PyTree:
            batch = problem.train_batch(0)
            return [slopes_of(problem, hyper, s.params, batch) for s in (state, other)]

        return parts.of_products(two, parts.state, count=1, vectors=4, steps=self.every)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> BarredRun:
        """The start of training.

        Raises:
            TypeError, ValueError: the dynamics descend no loss, or a hyperparameter reaches neither loss nor
                objective.
        """
        check_penalty(problem, hyper, type(self).__name__)
        state = spread(problem, problem.init(hyper))
        return BarredRun(state, jnp.zeros((), jnp.int32))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: BarredRun
    ) -> tuple[Estimate, BarredRun]:
        """Δ steps on the side, then the multiplier, then one step of w."""
        later = problem.later(carry.t)
        batch, rate = later.train_batch(self.every), at_step(self.rate, problem.k)

        def one(state: State, own: Array | None) -> _Barred:
            trained = roll(later, hyper, state, span=Span(0, self.every))
            value, by_params, by_hyper = read_own(problem, hyper, state, own=own)
            objective = Slopes(by_params, by_hyper)
            here, there = (slopes_of(problem, hyper, s.params, batch) for s in (state, trained))
            gap = Slopes(here.by_params, tree.subtract(here.by_hyper, there.by_hyper))
            squared = tree.dot(gap, gap)
            share = tree.dot(objective, gap) / jnp.where(squared > 0, squared, 1)
            # μ = max((φ - ⟨∇E, ∇q⟩) / ‖∇q‖², 0) with φ = η ‖∇q‖²
            multiplier = jnp.maximum(self.barrier - share, 0)
            descent = tree.add(objective, tree.scale(multiplier, gap))
            params = tree.subtract(state.params, tree.scale(rate, descent.by_params))
            size, left = tree.norm(by_params), tree.norm(descent.by_params)
            stats = {
                "residual": left / jnp.where(size > 0, size, 1),
                "multiplier": multiplier,
                "stationarity": tree.norm(here.by_params),
            }
            return _Barred(value, descent.by_hyper, trained._replace(params=params), stats)

        found = each(problem, one, carry.state)
        after = BarredRun(found.state, carry.t + self.every + 1)
        stats = jax.tree.map(jnp.max, found.stats) | {"t": after.t}
        aux = aux_of(problem, _first(problem, carry.state), stats)
        hypergradient = select(problem, hyper, found.hypergradient)
        return Estimate(problem.values(found.value), hypergradient, aux), after

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: BarredRun
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T training steps from where w stands."""
        return trained_further(problem, hyper, _first(problem, carry.state), carry.t)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


class _Barred(NamedTuple):
    """E, h, the state after the step, and what is told."""

    value: Scalar
    hypergradient: Hyper
    state: State
    stats: dict[str, Scalar]


def _first(problem: AbstractMoment, state: State) -> State:
    """The run of the first objective."""
    return jax.tree.map(lambda leaf: leaf[0], state) if problem.several_objectives else state
