r"""The derivative through the last training step, by two more gradients (DARTS, arXiv 1806.09055; SAMA, 2310.05674).

.. math:: w' = \Phi(w, \lambda, b), \quad q = -\Bigl(\frac{\partial \Phi}{\partial g}\Bigr)^{\!\top}
          \partial_w E(w'), \quad
          h = \partial_\lambda E(w') - \frac{\partial_\lambda L(w + \varepsilon q) -
          \partial_\lambda L(w - \varepsilon q)}{2 \varepsilon}

Under plain gradient descent q = η ∂_wE, and h is DARTS's; under Adam and its like q is what the optimiser would
make of ∂_wE, and h is SAMA's.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.reverse import roll
from rfho._implicit.condition import update_of
from rfho._implicit.penalty import Slopes, check_penalty, slopes_of
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of
from rfho.hyper_gradients.single_loop import Schedule, at_step, check_schedule, trained_further
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment, select
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State


class OneStepRun(NamedTuple):
    """The carry: one training run.

    Attributes:
        state: s_t, never reset.
        t: the batches seen so far.
    """

    state: State
    t: Int[Array, ""]


class OneStepHyperGradient(AbstractHyperGradient):
    r"""Hypergradient of the last training step alone, without second derivatives (DARTS; SAMA under Adam).

    As `T1T2HyperGradient`, for layers that have no second derivative or one that costs too much, and with
    the optimiser's own step in place of a rate: what Adam divides by, the hypergradient is divided by.

    Args:
        every: Δ, training steps for each estimate, of which the last is differentiated.
        step: the length of ε q, a number or a function of the outer step k. The difference is wrong by
            its square, and by rounding divided by it.

    Cost:
        Δ + 2 gradients of the loss and one of the objective, and no product with a Hessian; memory of two
        states. Biased by all steps before the last, which ``stats["error"]`` estimates. The rate of
        training has no such hypergradient, and is refused.

    Aux:
        - ``stats["residual"]``: ‖∂_wE - H q‖ / ‖∂_wE‖ = r, how much of ∂_wE one step leaves, from the
          same two gradients;
        - ``stats["error"]``, ``stats["relative_error"]``: what the steps before would add if each left √r
          of it, 7 √r / (1 - √r) times the size of the difference; infinite where r >= 1. Slow directions
          leave more than r; by the root and the factor one in a thousand random convex problems adds more;
        - ``stats["t"]``: batches seen.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.5), init=jnp.zeros(()))
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: w**2, horizon=60)
        >>> method = rfho.OneStepHyperGradient(every=60)
        >>> estimate = rfho.hyper_gradient(problem, {"l2": 1.0}, method)
        >>> round(float(estimate.hypergradient["l2"]), 2)  # one step settles all here
        -0.25

    References:
        Liu, Simonyan, Yang, "DARTS: Differentiable architecture search", arXiv 1806.09055; Choe, Mehta, Ahn,
        Neiswanger, Xie, Strubell, Xing, "Making scalable meta learning practical", arXiv 2310.05674.
    """

    every: int = eqx.field(static=True, default=1)
    step: Schedule = eqx.field(static=True, default=0.01)

    def __check_init__(self) -> None:
        positive_int(self.every, "every", type(self).__name__)
        check_schedule(self.step, "step", self)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 is long past."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps and the two gradients beside the last."""
        problem, hyper = parts.problem, parts.hyper

        def two(state: State, q: PyTree) -> PyTree:
            batch = problem.train_batch(0)
            return _along(problem, hyper, state.params, q, batch=batch, step=1.0)

        unknowns = parts.reading.by_state.params
        return parts.of_products(two, unknowns, count=1, vectors=4, steps=self.every)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> OneStepRun:
        """The start of the training run.

        Raises:
            TypeError, ValueError: the dynamics descend no loss, or a hyperparameter reaches neither loss nor
                objective.
        """
        check_penalty(problem, hyper, type(self).__name__)
        return OneStepRun(problem.init(hyper), jnp.zeros((), jnp.int32))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: OneStepRun
    ) -> tuple[Estimate, OneStepRun]:
        """Δ - 1 steps, then one whose update is pulled back."""
        span = Span(0, self.every - 1)
        before = roll(problem.later(carry.t), hyper, carry.state, span=span)
        t = carry.t + self.every
        batch = problem.train_batch(t - 1)
        update, whole = (
            update_of(problem.dynamics, type(self).__name__),
            problem.whole(hyper),
        )

        def stepped(gradient: PyTree) -> tuple[Params, State]:
            after = update(before, gradient, whole)
            return after.params, after

        slope = slopes_of(problem, hyper, before.params, batch).by_params
        _, pull_back, after = jax.vjp(stepped, slope, has_aux=True)
        reading, step = problem.read(after, hyper), at_step(self.step, problem.k)

        def one(seed: PyTree) -> tuple[Hyper, Scalar, Scalar]:
            q = tree.scale(-1.0, pull_back(seed)[0])
            found = _along(problem, hyper, before.params, q, batch=batch, step=step)
            size = tree.norm(seed)
            left = tree.norm(tree.subtract(seed, found.by_params))
            return found.by_hyper, left / jnp.where(size > 0, size, 1), tree.norm(found.by_hyper)

        one = jax.vmap(one) if problem.several_objectives else one
        cross, r, size = one(reading.by_state.params)
        hypergradient = select(problem, hyper, tree.subtract(reading.by_hyper, cross))
        stats = _stats(r, size, hypergradient) | {"t": t}
        aux = aux_of(problem, after, stats)
        return Estimate(problem.values(reading.value), hypergradient, aux), OneStepRun(after, t)

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: OneStepRun
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T more steps from where training stands."""
        return trained_further(problem, hyper, carry.state, carry.t)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


def _along(
    problem: AbstractMoment,
    hyper: Hyper,
    params: Params,
    q: PyTree,
    *,
    batch: Batch,
    step: Scalar | float,
) -> Slopes:
    """H q and (∂²_λwL) q by a central difference over w ± ε q, ‖ε q‖ = ``step``."""
    size = tree.norm(q)
    epsilon = step / jnp.where(size > 0, size, 1)
    ahead, behind = (
        slopes_of(problem, hyper, tree.add(params, tree.scale(sign * epsilon, q)), batch)
        for sign in (1, -1)
    )
    return tree.scale(1 / (2 * epsilon), tree.subtract(ahead, behind))


def _stats(r: Array, size: Array, hypergradient: Hyper) -> dict[str, Scalar]:
    """The residual, and what it says of the steps before, as a series goes on."""
    root = jnp.sqrt(r)
    error = jnp.max(jnp.where(r < 1, 7 * size * root / jnp.where(r < 1, 1 - root, 1), jnp.inf))
    norm = tree.norm(hypergradient)
    relative = jnp.where(error > 0, error / jnp.where(norm > 0, norm, 1), 0)
    return {"residual": jnp.max(r), "error": error, "relative_error": relative}
