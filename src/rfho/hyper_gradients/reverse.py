"""Reverse-HO (alg. 1 of arXiv 1703.01785)."""

import equinox as eqx

from rfho._engines.reverse import blank_tape, sweep, through_init
from rfho.choice.forecast import Forecast, Parts
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode, estimated, evaluated
from rfho.hyper_gradients.precision import (
    Precision,
    as_rounded,
    check_precision,
    measured,
    measured_cost,
)
from rfho.memory import AbstractCheckpoint, Recompute, Span, StoreAll
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree


class ReverseHyperGradient(AbstractHyperGradient):
    r"""Exact hypergradient by one sweep back through training.

    The method of choice for many hyperparameters: its cost does not depend on their number.

    .. math:: \nabla f = \partial_\lambda E + \sum_t \alpha_t B_t + \alpha_0 \partial\Phi_0,
              \quad \alpha_{t-1} = \alpha_t A_t, \quad \alpha_T = \partial_s E

    Args:
        checkpoint: the memory policy: `StoreAll` (fastest), `Recompute` (√T states), `Binomial` (a
            number of states that you choose).
        precision: where it computes in which precision, and how far that moves the estimate, see
            `rfho.hyper_gradients.Precision`; as the problem does by default.

    Cost:
        Time O(T), two to four times plain training; memory O(T) states under `StoreAll`, less with
        others. Exact up to rounding. Needs dynamics that can be differentiated in reverse mode.

    Aux:
        ``stats["adjoint_norm"]``: ‖α_0‖, the parameters' part of the adjoint at the first step; against
        ``stats["seed_norm"]``, ‖α_T‖, it says whether the signal explodes or fades on its way back.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2, lambda hyper: optax.sgd(hyper), jnp.zeros(())
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=1
        ... )
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(rfho.Recompute())
        >>> float(rfho.hyper_gradient(problem, 0.1, method).hypergradient)  # w_1 = 2 λ
        2.0
    """

    checkpoint: AbstractCheckpoint = eqx.field(default_factory=StoreAll)
    precision: Precision | None = None

    def __check_init__(self) -> None:
        check_precision(self)

    @property
    def mode(self) -> Mode:
        """Reverse."""
        return Mode.REVERSE

    @property
    def trains_anew(self) -> bool:
        """It is."""
        return True

    def cost(self, parts: Parts) -> Forecast:
        """Of the policy, over the whole run."""
        if self.precision is not None:
            return measured_cost(self, parts, self._finer())
        return parts.of_reverse(self.checkpoint, Span(0, parts.problem.horizon))

    def init(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Nothing is carried."""

    def reserve(self, problem: AbstractMoment, hyper: Hyper) -> PyTree:
        """The tape."""
        whole_run = Span(0, problem.horizon)
        method, problem = as_rounded(self, problem)
        return blank_tape(problem, hyper, span=whole_run, checkpoint=method.checkpoint)

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: PyTree
    ) -> tuple[Estimate, PyTree]:
        """∇f(λ) of the whole run; ``carry`` is None or what `reserve` gave."""
        if self.precision is not None:
            return measured(self, problem, hyper, carry, finer=self._finer())
        swept = sweep(
            problem,
            hyper,
            problem.init(hyper),
            span=Span(0, problem.horizon),
            checkpoint=self.checkpoint,
            tape=carry,
        )
        swept = through_init(problem, hyper, swept)
        return estimated(problem, hyper, swept), None if carry is None else swept.tape

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: PyTree
    ) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run."""
        return evaluated(as_rounded(self, problem)[1], hyper)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""

    def _finer(self) -> "ReverseHyperGradient":
        return ReverseHyperGradient(Recompute())
