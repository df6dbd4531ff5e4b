r"""Training, the linear system and λ in turn, every step on a minibatch of its own (AmIGO, stocBiO; T1-T2).

.. math:: w \leftarrow \Phi(w, \lambda, b) \ \ \Delta\text{ times}, \quad
          q \leftarrow q + \rho\,(\partial_w E - \partial^2_{ww} L_b\, q) \ \ P\text{ times}, \quad
          h = \partial_\lambda E - \partial^2_{\lambda w} L_b\, q
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho._engines.reverse import roll
from rfho._implicit.condition import AbstractCondition, Stationary
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of
from rfho.hyper_gradients.single_loop import (
    TOGETHER,
    AdjointRun,
    Schedule,
    at_step,
    check_condition,
    check_schedule,
    cost_of,
    looked,
    start_run,
    trained_further,
)
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment
from rfho.typing import Batch, Hyper, Params, PyTree, Step


class AbstractAlternating(AbstractHyperGradient):
    """Δ training steps, then q in some way, then one look at the hypergradient."""

    every: eqx.AbstractVar[int]
    condition: eqx.AbstractVar[Callable[[Batch], AbstractCondition]]

    @abc.abstractmethod
    def solved(self, problem: AbstractMoment, hyper: Hyper, run: AdjointRun) -> AdjointRun:
        """``run`` with the q that belongs to its state, and with the batches counted that it took."""

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 does not move the point at which training ends."""
        return False

    def init(self, problem: AbstractMoment, hyper: Hyper) -> AdjointRun:
        """Training at its start, q = 0.

        Raises:
            TypeError, ValueError: the condition does not apply; see `rfho.Stationary`.
        """
        return start_run(self.condition, problem, hyper)

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: AdjointRun
    ) -> tuple[Estimate, AdjointRun]:
        """Train, solve, look."""
        span = Span(0, self.every)
        state = roll(problem.later(carry.t), hyper, carry.state, span=span)
        run = self.solved(problem, hyper, AdjointRun(state, carry.t + self.every, carry.adjoint))
        here = self.condition(problem.train_batch(run.t))
        look = TOGETHER(lambda run: looked(here, problem, hyper, run=run))(run)
        after = run._replace(t=run.t + 1)
        aux = aux_of(problem, state, look.stats | {"t": after.t})
        return Estimate(look.value, look.hypergradient, aux), after

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: AdjointRun
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T more steps from where training stands."""
        return trained_further(problem, hyper, carry.state, carry.t)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


class AlternatingHyperGradient(AbstractAlternating):
    r"""Hypergradients of the minimiser from minibatches: some steps of training, some of its linear system.

    Between `SingleLoopHyperGradient`, where one step of each must do, and `ImplicitHyperGradient`, which
    solves on all of the data. With a warm start it is AmIGO; without it, with ``products`` terms of a
    series of independent minibatches, stocBiO.

    Args:
        rate: ρ, of the steps of q; a number below 2 divided by the largest curvature, or a function of
            the outer step k.
        every: Δ, training steps for each estimate.
        products: P, steps of q for each estimate.
        warm_start: q goes on from the last estimate; otherwise it begins at 0. Training always goes on.
        condition: what holds where training ends, made of a batch: `rfho.Stationary` or
            `rfho.FixedPoint`.

    Cost:
        Δ training steps, P + 1 products with the Hessian, each on a minibatch of its own, and one gradient
        of the objective; memory of one linearised gradient and q. Biased, until training and q have
        settled. The rate of training has no such hypergradient, and is refused.

    Aux:
        ``stats["residual"]``: ‖∂_wE - H_b q‖ / ‖∂_wE‖ and ``stats["stationarity"]``: ‖∂_wL_b‖, both on
        one more minibatch, so that neither falls to 0 where minibatches disagree; ``stats["t"]``: batches
        seen.

    Example:
        >>> import rfho
        >>> amigo = rfho.AlternatingHyperGradient(rate=0.1, every=10, products=10)
        >>> stocbio = rfho.AlternatingHyperGradient(0.1, every=10, products=10, warm_start=False)

    References:
        Arbel and Mairal, "Amortized implicit differentiation for stochastic bilevel optimization", arXiv
        2111.14580; Ji, Yang, Liang, "Bilevel optimization: convergence analysis and enhanced design",
        arXiv 2010.07962.
    """

    rate: Schedule = eqx.field(static=True)
    every: int = eqx.field(static=True)
    products: int = eqx.field(static=True)
    warm_start: bool = eqx.field(static=True, default=True)
    condition: Callable[[Batch], AbstractCondition] = eqx.field(static=True, default=Stationary)

    def __check_init__(self) -> None:
        name = type(self).__name__
        check_schedule(self.rate, "rate", self)
        positive_int(self.every, "every", name)
        positive_int(self.products, "products", name)
        check_condition(self.condition, self)

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps, P products, and a look."""
        return cost_of(self.condition, parts, steps=self.every, products=self.products + 1)

    def solved(self, problem: AbstractMoment, hyper: Hyper, run: AdjointRun) -> AdjointRun:
        """P steps of q, each on the next batch."""
        rate = at_step(self.rate, problem.k)
        reading = problem.read(run.state, hyper)

        def one(i: Step, q: PyTree) -> PyTree:
            here = self.condition(problem.train_batch(run.t + i))
            apply = here.system(problem, hyper, run.state).operator.apply
            apply = jax.vmap(apply) if problem.several_objectives else apply
            # q ← q + ρ (v - H q)
            residual = tree.subtract(here.unknowns(reading.by_state), apply(q))
            return tree.add(q, tree.scale(rate, residual))

        begin = run.adjoint if self.warm_start else jax.tree.map(jnp.zeros_like, run.adjoint)
        q = jax.lax.fori_loop(0, self.products, TOGETHER(one), begin)
        return AdjointRun(run.state, run.t + self.products, q)


class T1T2HyperGradient(AbstractAlternating):
    r"""Hypergradient of the last training step alone, while training goes on (T1-T2).

    .. math:: h = \partial_\lambda E - \eta\, \partial^2_{\lambda w} L_b\; \partial_w E

    The first term of the Neumann series, q = η ∂_wE: the cheapest of all, for penalties and the like
    that act on every step, and the most biased where they act slowly.

    Args:
        rate: η, the rate of the training step; a number or a function of the outer step k.
        every: Δ, training steps for each estimate.
        condition: what holds where training ends, made of a batch: `rfho.Stationary` or
            `rfho.FixedPoint`.

    Cost:
        Δ training steps, one product with the Hessian, and one gradient of the objective; memory of one
        linearised gradient. Biased by all terms of the series but the first: at a stationary point under
        plain gradient descent it is the first point of `rfho.checks.bias_curve`. The rate of training has
        no such hypergradient, and is refused.

    Aux:
        As for `AlternatingHyperGradient`; ``stats["residual"]`` says how much of ∂_wE the first term
        leaves.

    Example:
        >>> import rfho
        >>> method = rfho.T1T2HyperGradient(rate=0.1, every=10)

    References:
        Luketina, Berglund, Greff, Raiko, "Scalable gradient-based tuning of continuous regularization
        hyperparameters", arXiv 1511.06727.
    """

    rate: Schedule = eqx.field(static=True)
    every: int = eqx.field(static=True, default=1)
    condition: Callable[[Batch], AbstractCondition] = eqx.field(static=True, default=Stationary)

    def __check_init__(self) -> None:
        check_schedule(self.rate, "rate", self)
        positive_int(self.every, "every", type(self).__name__)
        check_condition(self.condition, self)

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps and a look."""
        return cost_of(self.condition, parts, steps=self.every, products=1)

    def solved(self, problem: AbstractMoment, hyper: Hyper, run: AdjointRun) -> AdjointRun:
        """η ∂_wE, of no batch."""
        here = self.condition(problem.train_batch(run.t))
        seed = here.unknowns(problem.read(run.state, hyper).by_state)
        return run._replace(adjoint=tree.scale(at_step(self.rate, problem.k), seed))
