r"""A penalty in place of second derivatives (F2SA, arXiv 2301.10945).

Training on a loss that also asks for a small objective ends a little elsewhere,

.. math:: z = \arg\min_w L(w, \lambda), \quad
          y_\sigma = \arg\min_w\, L(w, \lambda) + \tfrac1\sigma E(w, \lambda),

and the difference is the hypergradient, up to a bias that falls as the penalty σ grows:

.. math:: h_\sigma = \partial_\lambda E(y_\sigma) + \sigma\,\bigl(\partial_\lambda L(y_\sigma) -
          \partial_\lambda L(z)\bigr) = \nabla f + O(1/\sigma)
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._implicit.penalty import (
    Difference,
    Slopes,
    check_penalty,
    difference,
    pulled_on,
    slopes_of,
    spread,
)
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of
from rfho.hyper_gradients.single_loop import (
    TOGETHER,
    Schedule,
    at_step,
    check_schedule,
    trained_further,
)
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State, Step


class PenalisedRuns(NamedTuple):
    """The carry: training, and beside it training with the objective as a penalty.

    Attributes:
        state: of training itself, which tends to z; never reset.
        t: the batches seen so far.
        full, half: the states that tend to y under the penalties σ and σ/2, with a leading axis if there
            are several objectives.
    """

    state: State
    t: Int[Array, ""]
    full: State
    half: State


class FirstOrderHyperGradient(AbstractHyperGradient):
    r"""Hypergradient of the minimiser without second derivatives, from runs that a penalty pulls apart.

    For models whose layers have no second derivative, or one that costs too much. Three runs go on side by
    side: training, and two that are penalised, by σ and by σ/2. The two say how large the bias is, and
    extrapolation takes its first order away:

    .. math:: h = 2 h_\sigma - h_{\sigma/2} = \nabla f + O(1/\sigma^2)

    Args:
        penalty: σ, a number or a function of the outer step k, which should then grow. The larger, the
            smaller the bias, and the larger the noise: what rounding, minibatches and steps that are too
            few leave of y - z is multiplied by it.
        every: Δ, steps of each run for each estimate.

    Cost:
        Δ gradients of the loss three times, of the objective twice, and no product with a Hessian; memory
        of three states. Biased, by what σ leaves and by what training and the two runs lag behind; see
        ``stats["error"]``. The rate of training has no such hypergradient, and is refused.

    Aux:
        - ``stats["bias"]``: ‖h_σ - h_σ/2‖, the bias that was taken away; what is left of it is smaller
          where σ is large enough;
        - ``stats["lag"]``: ‖σ (∂_wL(y) - ∂_wL(z)) + ∂_wE(y)‖ / ‖∂_wE(y)‖, the gap that steps have left between
          the two runs, without what both lag behind alike;
        - ``stats["error"]``, ``stats["relative_error"]``: 1.5 ``"bias"`` + 27 ``"lag"`` ‖h‖, fitted so that one
          in a thousand random convex problems is wrong by more;
        - ``stats["residual"]``: ‖σ ∂_wL + ∂_wE‖ / ‖∂_wE‖ where the run under σ stands, the gap that its
          steps have left; ``stats["stationarity"]``: ‖∂_wL‖ where training stands; both on a minibatch;
        - ``stats["t"]``: batches seen.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.5), init=jnp.zeros(()))
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: w**2, horizon=60)
        >>> method = rfho.FirstOrderHyperGradient(penalty=100.0, every=60)
        >>> estimate = rfho.hyper_gradient(problem, {"l2": 1.0}, method)
        >>> round(float(estimate.hypergradient["l2"]), 2)  # w = 1 / (1 + l2)
        -0.25

    References:
        Kwon, Kwon, Wright, Nowak, "A fully first-order method for stochastic bilevel optimization", arXiv
        2301.10945.
    """

    penalty: Schedule = eqx.field(static=True)
    every: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_schedule(self.penalty, "penalty", self)
        positive_int(self.every, "every", type(self).__name__)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 does not move the point at which training ends."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps of training, 2 Δ penalised ones, a look at both, and the states of three runs."""
        problem, hyper = parts.problem, parts.hyper

        def penalised(state: State, run: State) -> State:
            batch = problem.train_batch(0)
            return pulled_on(problem, hyper, spread(problem, run), batch=batch, penalty=1.0)

        count = 2 * (self.every + 1)
        return parts.of_products(
            penalised, parts.state, count=count, vectors=4, steps=self.every + 1
        )

    def init(self, problem: AbstractMoment, hyper: Hyper) -> PenalisedRuns:
        """All runs at the start of training.

        Raises:
            TypeError, ValueError: the dynamics descend no loss, or a hyperparameter reaches neither loss nor
                objective.
        """
        check_penalty(problem, hyper, type(self).__name__)
        state = problem.init(hyper)
        pulled = spread(problem, state)
        return PenalisedRuns(state, jnp.zeros((), jnp.int32), pulled, pulled)

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: PenalisedRuns
    ) -> tuple[Estimate, PenalisedRuns]:
        """Δ steps of each run, then the differences of their gradients by λ."""
        sigma = at_step(self.penalty, problem.k)

        def step(i: Step, runs: PenalisedRuns) -> PenalisedRuns:
            batch = problem.train_batch(carry.t + i)
            state = problem.dynamics.step(runs.state, problem.whole(hyper), batch)
            full, half = (
                pulled_on(problem, hyper, run, batch=batch, penalty=penalty)
                for run, penalty in ((runs.full, sigma), (runs.half, sigma / 2))
            )
            return PenalisedRuns(state, runs.t, full, half)

        runs = jax.lax.fori_loop(0, self.every, TOGETHER(step), carry)
        batch = problem.train_batch(carry.t + self.every)

        def looked(runs: PenalisedRuns) -> tuple[Slopes, Difference, Difference]:
            plain = slopes_of(problem, hyper, runs.state.params, batch)
            full, half = (
                difference(problem, hyper, run, batch=batch, penalty=penalty, plain=plain)
                for run, penalty in ((runs.full, sigma), (runs.half, sigma / 2))
            )
            return plain, full, half

        plain, full, half = TOGETHER(looked)(runs)
        bias = tree.subtract(full.hypergradient, half.hypergradient)
        hypergradient = tree.add(full.hypergradient, bias)
        after = runs._replace(t=carry.t + self.every + 1)
        size = tree.norm(hypergradient)
        error = 1.5 * tree.norm(bias) + 27 * jnp.max(full.lag) * size
        stats = {
            "lag": jnp.max(full.lag),
            "bias": tree.norm(bias),
            "error": error,
            "relative_error": jnp.where(size > 0, error / jnp.where(size > 0, size, 1), 0),
            "residual": jnp.max(full.residual),
            "stationarity": tree.norm(plain.by_params),
            "t": after.t,
        }
        aux = aux_of(problem, runs.state, stats)
        return Estimate(problem.evaluate(aux.params, hyper), hypergradient, aux), after

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: PenalisedRuns
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T more steps from where training stands."""
        return trained_further(problem, hyper, carry.state, carry.t)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""
