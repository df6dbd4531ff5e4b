"""Truncated reverse: the sweep stops after K steps (arXiv 1810.10667), in batch and online."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.left_out import beyond
from rfho._engines.reverse import roll, sweep, through_init
from rfho._engines.stopping import stopping_sweep
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode, estimated, evaluated
from rfho.memory import AbstractCheckpoint, Recompute, Span, StoreAll
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, Scalar, State


class TruncatedHyperGradient(AbstractHyperGradient):
    r"""Hypergradient of the last K steps, the earlier ones taken as given.

    .. math:: h_{T-K} = \partial_\lambda E + \sum_{t=T-K+1}^{T} \alpha_t B_t

    The bias falls geometrically with K where the inner problem is strongly convex near its end, and
    is unbounded where it is not: `rfho.checks.bias_curve` measures it for every K.

    Args:
        window: K. With ``window >= horizon`` this is `ReverseHyperGradient`, initial dynamics
            included. With ``"auto"`` the sweep goes back by √T steps at a time until what is left is
            small.
        checkpoint: the memory policy within the window.
        bias: with ``"auto"``, how small: relative to the hypergradient's norm.

    Cost:
        Time of T steps forward and K + 1 back; memory O(K) states. Biased for K < T. Learned initial
        parameters receive nothing while K < T. With ``"auto"`` K more steps forward, and O(√T) states.

    Aux:
        ``stats["adjoint_norm"]``: ‖α_{T-K}‖ at the parameters, what is thrown away, against
        ``"seed_norm"``. ``stats["error"]``, ``"relative_error"``: what is left out, if the window is less than
        the horizon; of random convex problems it is more in one of a thousand, and half to a tenth of it as a
        rule. ``stats["window"]``: K, with ``"auto"``.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.TruncatedHyperGradient(window=20)
    """

    window: int | Literal["auto"] = eqx.field(static=True)
    checkpoint: AbstractCheckpoint = eqx.field(default_factory=StoreAll)
    bias: float = eqx.field(static=True, default=0.01)

    def __check_init__(self) -> None:
        if self.window != "auto":
            positive_int(self.window, "window", type(self).__name__)
        if not 0 < self.bias < 1:
            raise ValueError(
                f"{type(self).__name__} got bias={self.bias!r}, but it must be a number between 0 and 1"
            )

    @property
    def mode(self) -> Mode:
        """Reverse."""
        return Mode.REVERSE

    @property
    def trains_anew(self) -> bool:
        """It is."""
        return True

    def reach(self, problem: AbstractMoment) -> int:
        """The window."""
        return self._longest(problem)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """A window as long as the horizon reaches it; one that is not known cannot be counted on."""
        return self.window != "auto" and self.window >= problem.horizon

    def cost(self, parts: Parts) -> Forecast:
        """Plain steps up to the window, and the policy over it; with ``"auto"`` at most those of `Recompute`."""
        if self.window == "auto":
            return parts.of_reverse(Recompute(), Span(0, parts.problem.horizon), before=0)
        cut = parts.problem.horizon - self._longest(parts.problem)
        return parts.of_reverse(self.checkpoint, Span(cut, parts.problem.horizon), before=cut)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Nothing is carried."""

    def estimate(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[Estimate, None]:
        """h_{T-K} of one run."""
        if self.window == "auto":
            return self._stopping(problem, hyper), carry
        cut = problem.horizon - self._longest(problem)
        span = Span(cut, problem.horizon)
        if cut == 0:
            begin = problem.init(hyper)
            swept = sweep(problem, hyper, begin, span=span, checkpoint=self.checkpoint)
            return estimated(problem, hyper, through_init(problem, hyper, swept)), carry
        before = roll(problem, hyper, problem.init(hyper), span=Span(0, cut - 1))
        state = problem.step(before, hyper, cut - 1)
        swept = sweep(problem, hyper, state, span=span, checkpoint=self.checkpoint)
        error = beyond(problem, hyper, before, swept=swept, steps=cut, window=span.length)
        return _telling(estimated(problem, hyper, swept), error), carry

    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run."""
        return evaluated(problem, hyper)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""

    def _longest(self, problem: AbstractMoment) -> int:
        return problem.horizon if self.window == "auto" else min(self.window, problem.horizon)

    def _stopping(self, problem: AbstractMoment, hyper: Hyper) -> Estimate:
        found = stopping_sweep(problem, hyper, checkpoint=self.checkpoint, bias=self.bias)
        estimate = _telling(estimated(problem, hyper, found.sweep), found.error)
        stats = estimate.aux.stats | {"window": found.window}
        return estimate._replace(aux=estimate.aux._replace(stats=stats))


def _telling(estimate: Estimate, error: Scalar) -> Estimate:
    """The estimate with what it leaves out among its statistics."""
    size = tree.norm(estimate.hypergradient)
    relative = jnp.where(error > 0, error / jnp.where(size > 0, size, 1), 0)
    stats = estimate.aux.stats | {"error": error, "relative_error": relative}
    return estimate._replace(aux=estimate.aux._replace(stats=stats))


class TrainingRun(NamedTuple):
    """The carry of online methods: the one training run and where it stands.

    Attributes:
        state: s_t, never reset.
        t: the steps done so far, never reset.
    """

    state: State
    t: Int[Array, ""]


class OnlineTruncatedHyperGradient(AbstractHyperGradient):
    r"""Truncated reverse while training goes on: every Δ steps a sweep over the last K of them.

    Args:
        window: K <= Δ; steps before the last update saw another λ, and are taken as given. Learned
            initial parameters receive something from the first update alone, and with K = Δ only.
        every: Δ, inner steps between outer updates.
        checkpoint: the memory policy within the window.

    Cost:
        One training run in all, plus K steps back per update; memory O(K) states. Biased.

    Aux:
        ``stats["adjoint_norm"]`` and ``stats["seed_norm"]`` as in `TruncatedHyperGradient`;
        ``stats["t"]``: inner steps done.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.OnlineTruncatedHyperGradient(window=5, every=10)
    """

    window: int = eqx.field(static=True)
    every: int = eqx.field(static=True)
    checkpoint: AbstractCheckpoint = eqx.field(default_factory=StoreAll)

    def __check_init__(self) -> None:
        name = type(self).__name__
        positive_int(self.window, "window", name)
        positive_int(self.every, "every", name)
        if self.window > self.every:
            raise ValueError(
                f"{name} got window={self.window} and every={self.every}, but steps before the last update "
                "saw other hyperparameters: choose window <= every"
            )

    @property
    def mode(self) -> Mode:
        """Reverse."""
        return Mode.REVERSE

    def reach(self, problem: AbstractMoment) -> int:
        """The window."""
        return min(self.window, problem.horizon)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """Training goes on: λ is moved long after s_0."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps, the policy over the last K of them."""
        cut = self.every - self.window
        return parts.of_reverse(self.checkpoint, Span(cut, self.every), before=cut)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> TrainingRun:
        """The start of the one training run."""
        return TrainingRun(problem.init(hyper), jnp.zeros((), jnp.int32))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: TrainingRun
    ) -> tuple[Estimate, TrainingRun]:
        """Δ further steps, the last K of them swept back."""
        shifted = problem.later(carry.t)
        cut = self.every - self.window
        state = roll(shifted, hyper, carry.state, span=Span(0, cut))
        span = Span(cut, self.every)
        swept = sweep(shifted, hyper, state, span=span, checkpoint=self.checkpoint)
        if cut == 0:
            whole = lambda: through_init(problem, hyper, swept)  # noqa: E731
            swept = jax.lax.cond(carry.t == 0, whole, lambda: swept)
        after = TrainingRun(swept.state, carry.t + self.every)
        estimate = estimated(problem, hyper, swept)
        stats = estimate.aux.stats | {"t": after.t}
        return estimate._replace(aux=estimate.aux._replace(stats=stats)), after

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: TrainingRun
    ) -> tuple[PyTree, Params]:
        """The objective where the run stands."""
        params = problem.dynamics.output(carry.state)
        return problem.evaluate(params, hyper), params

    def limit(self, problem: AbstractMoment) -> int:
        """One training run of T steps."""
        return problem.horizon // self.every
