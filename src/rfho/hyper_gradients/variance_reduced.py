r"""The single loop, with each of its three directions told from all batches seen so far (SABA, SRBA).

.. math:: w \leftarrow \text{the optimiser's step on } \widehat{\partial_w L}, \quad
          q \leftarrow q + \rho\,(\widehat{\partial_w E} - \widehat{\partial^2_{ww} L\, q}), \quad
          h = \widehat{\partial_\lambda E} - \widehat{\partial^2_{\lambda w} L\, q}

where a hat is SAGA's or SARAH's estimate of a mean over batches (arXiv 2201.13409, 2302.08766).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._implicit.condition import Stationary, update_of
from rfho._implicit.penalty import Slopes
from rfho._implicit.reduction import SAGA, AbstractReduction, Numbered, numbered
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of
from rfho.hyper_gradients.single_loop import (
    AdjointRun,
    Schedule,
    at_step,
    check_schedule,
    cost_of,
    start_run,
    trained_further,
)
from rfho.problem.moment import AbstractMoment, select
from rfho.problem.stream import Indexed
from rfho.typing import Hyper, Params, PyTree, State, Step


class ReducedRun(NamedTuple):
    """The carry: one training run with its q, and what has been seen of the batches.

    Attributes:
        run: training and q.
        train: what the reduction remembers of the loss.
        valid: of the objective; None where its batches have no numbers.
    """

    run: AdjointRun
    train: Any
    valid: Any


class Point(NamedTuple):
    """z, where all three directions are read."""

    params: Params
    adjoint: PyTree
    hyper: Hyper


class Directions(NamedTuple):
    """What one training batch says: ∂_wL, (∂²_wwL) q and (∂²_λwL) q."""

    slope: PyTree
    product: PyTree
    cross: Hyper


class VarianceReducedHyperGradient(AbstractHyperGradient):
    r"""`SingleLoopHyperGradient` whose noise dies away: at fixed rates it converges, and as fast as without noise.

    A batch comes again; what it said last time says most of what it will say. So the batches must be a
    fixed list, an `rfho.Indexed`; arrays are one batch, and nothing is left to reduce. Validation batches
    are reduced likewise if they are an `rfho.Indexed`, and taken as they come otherwise.

    Args:
        rate: ρ, of the steps of q; a number below 2 divided by the largest curvature, or a function of
            the outer step k.
        reduction: `rfho.hyper_gradients.SAGA`, with which this is SABA, or
            `rfho.hyper_gradients.SARAH`, with which it is SRBA.

    Cost:
        That of `SingleLoopHyperGradient` with `SAGA`, which keeps three vectors for each batch; twice that,
        and a look at all batches now and then, with `SARAH`, which keeps two points. Biased, until
        training, q and λ have settled, and then not. The rate of training has no such hypergradient, and
        is refused.

    Aux:
        ``stats["residual"]``: ‖∂_wE - Hq‖ / ‖∂_wE‖ and ``stats["stationarity"]``: ‖∂_wL‖, both as the
        reduction has them over all batches, so that they fall to 0; ``stats["t"]``: batches seen.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * jnp.mean((w - batch) ** 2) + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.1), init=jnp.zeros(()))
        >>> batches = rfho.Indexed(jnp.arange(3.0), [[0], [1], [2]], key=0)
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: (w - 0.5) ** 2, train=batches, horizon=10
        ... )
        >>> method = rfho.VarianceReducedHyperGradient(rate=0.1)
        >>> tuned = rfho.tune(problem, {"l2": 0.5}, method=method, optim=optax.sgd(0.1), steps=500)
        >>> round(float(tuned.hyper["l2"]), 2)  # w = 1 / (1 + l2)
        1.0

    References:
        Dagréou, Ablin, Vaiter, Moreau, "A framework for bilevel optimization that enables stochastic and
        global variance reduction algorithms", arXiv 2201.13409; Dagréou, Moreau, Vaiter, Ablin, "A lower
        bound and a near-optimal algorithm for bilevel empirical risk minimization", arXiv 2302.08766.
    """

    rate: Schedule = eqx.field(static=True)
    reduction: AbstractReduction = SAGA()

    def __check_init__(self) -> None:
        check_schedule(self.rate, "rate", self)
        if not isinstance(self.reduction, AbstractReduction):
            raise TypeError(
                f"VarianceReducedHyperGradient got reduction={self.reduction!r}, but it must be an "
                "rfho.hyper_gradients.SAGA() or an rfho.hyper_gradients.SARAH(period)"
            )

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 does not move the point at which training ends."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """A step, as many products as the reduction takes, and what it remembers."""
        count = numbered(parts.problem).rows
        products = self.reduction.terms_per_step(count)
        found = cost_of(Stationary, parts, steps=1, products=products)
        row = 2 * tree.nbytes(parts.reading.by_state.params) + tree.nbytes(parts.reading.by_hyper)
        return found._replace(memory=found.memory + self.reduction.rows(count) * row)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> ReducedRun:
        """Training at its start, q = 0, and what the reduction remembers there.

        Raises:
            TypeError, ValueError: the batches have no numbers, or the condition does not apply; see
                `rfho.Stationary`.
        """
        train, valid = numbered(problem), problem.valid
        update_of(problem.dynamics, type(self).__name__)
        run = start_run(Stationary, problem, hyper)
        terms, point = _Terms(problem, run.state, train), _point(run, hyper)
        seen = self.reduction.init(terms.training, point, count=train.rows)
        if not isinstance(valid, Indexed):
            return ReducedRun(run, seen, None)
        of_valid = self.reduction.init(terms.validation, point, count=len(valid.index))
        return ReducedRun(run, seen, of_valid)

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: ReducedRun
    ) -> tuple[Estimate, ReducedRun]:
        """The three directions by their reduction, then one step of everything."""
        run = carry.run
        directions, of_train = self._trained(problem, hyper, carry)
        value, slopes, of_valid = self._validated(problem, hyper, carry)
        # q ← q + ρ (v - H q)
        residual = tree.subtract(slopes.by_params, directions.product)
        adjoint = tree.add(run.adjoint, tree.scale(at_step(self.rate, problem.k), residual))
        update = update_of(problem.dynamics, type(self).__name__)
        state = update(run.state, directions.slope, problem.whole(hyper))
        hypergradient = tree.subtract(slopes.by_hyper, directions.cross)
        after = AdjointRun(state, run.t + 1, adjoint)
        size = tree.norm(slopes.by_params)
        stats = {
            "residual": tree.norm(residual) / jnp.where(size > 0, size, 1),
            "stationarity": tree.norm(directions.slope),
            "t": after.t,
        }
        aux = aux_of(problem, run.state, stats)
        estimate = Estimate(problem.values(value), select(problem, hyper, hypergradient), aux)
        return estimate, ReducedRun(after, of_train, of_valid)

    def _trained(
        self, problem: AbstractMoment, hyper: Hyper, carry: ReducedRun
    ) -> tuple[Directions, Any]:
        """What all training batches say, from the next."""
        train, run = numbered(problem), carry.run
        return self.reduction.reduced(
            _Terms(problem, run.state, train).training,
            carry.train,
            point=_point(run, hyper),
            number=train.number(problem.t0 + run.t),
            count=train.rows,
        )

    def _validated(
        self, problem: AbstractMoment, hyper: Hyper, carry: ReducedRun
    ) -> tuple[Array, Slopes, Any]:
        """The objectives on the next validation batch, and their slopes on all of them."""
        run, valid = carry.run, problem.valid
        reading = problem.read(run.state, hyper)
        slopes = Slopes(Stationary().unknowns(reading.by_state), reading.by_hyper)
        if not isinstance(valid, Indexed):
            return reading.value, slopes, None
        slopes, seen = self.reduction.reduced(
            _Terms(problem, run.state, numbered(problem)).validation,
            carry.valid,
            point=_point(run, hyper),
            number=valid.number(problem.k),
            count=len(valid.index),
        )
        return reading.value, slopes, seen

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: ReducedRun
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T more steps from where training stands."""
        return trained_further(problem, hyper, carry.run.state, carry.run.t)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


class _Terms(NamedTuple):
    """The terms of both means, as functions of z and a batch's number."""

    problem: AbstractMoment
    state: State
    train: Numbered

    def training(self, point: Point, number: Step) -> Directions:
        """∂_wL_i, (∂²_wwL_i) q and (∂²_λwL_i) q by one linearisation."""
        here = Stationary(self.train.batch(number))
        system = here.system(self.problem, point.hyper, here.replaced(self.state, point.params))
        both = lambda q: (system.operator.apply(q), system.cross(q))  # noqa: E731
        both = jax.vmap(both) if self.problem.several_objectives else both
        return Directions(system.slope, *both(point.adjoint))

    def validation(self, point: Point, number: Step) -> Slopes:
        """∂_wE_j and ∂_λE_j."""
        problem = self.problem.validated_on(self.problem.valid.batch(number))
        reading = problem.read(Stationary().replaced(self.state, point.params), point.hyper)
        return Slopes(Stationary().unknowns(reading.by_state), reading.by_hyper)


def _point(run: AdjointRun, hyper: Hyper) -> Point:
    return Point(Stationary().unknowns(run.state), run.adjoint, hyper)
