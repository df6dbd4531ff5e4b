"""Training that starts where the last training ended.

Batch methods begin every training run at Φ_0(λ). As λ moves little from one outer step to the next,
the last trained state is a far better start: after many outer steps training is done, and its
horizon can be short (as the original package's ``warm_start``, and stocBiO, arXiv 2010.07962).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho._programs.tracing import is_traced
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import HyperGradientError
from rfho.files import Planned
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode
from rfho.hyper_gradients.segments import evaluate
from rfho.hyper_gradients.watch import Watch
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State


class WarmRun(NamedTuple):
    """The end of the last training run, and the carry of the method inside.

    Attributes:
        state: s_T, parameters and slots.
        t: steps of all runs so far; the next run takes the batches from there.
        carry: the method's own.
    """

    state: State
    t: Int[Array, ""]
    carry: Any


class WarmRestartHyperGradient(AbstractHyperGradient):
    """Any batch method, with each training run starting from the end of the one before.

    Args:
        method: a method that trains T steps for each estimate, such as `ReverseHyperGradient`.

    Raises:
        TypeError: an estimate of ``method`` is not one training run from its start; the message says
            what to use instead.

    Cost:
        That of ``method``. Biased: the state from which a run starts depends on earlier λ, but is
        taken as given. So learned initial parameters receive nothing but through the objective, and
        as T grows the bias fades like that of `TruncatedHyperGradient` with ``window=T``.

    Aux:
        That of ``method``.

    Example:
        >>> import rfho
        >>> reverse = rfho.hyper_gradients.ReverseHyperGradient()
        >>> method = rfho.hyper_gradients.WarmRestartHyperGradient(reverse)
    """

    method: AbstractHyperGradient

    def __check_init__(self) -> None:
        if not isinstance(self.method, AbstractHyperGradient):
            raise TypeError(
                f"WarmRestartHyperGradient got method={self.method!r}, but it must be one of rfho.hyper_gradients"
            )
        if not self.method.trains_anew:
            raise TypeError(
                f"WarmRestartHyperGradient got a {type(self.method).__name__}, but an estimate of it is not "
                "one training run that could begin anywhere: use it as it is (an online method goes on from its "
                "state anyway, an implicit one has warm_start=True), or give ReverseHyperGradient"
            )

    @property
    def mode(self) -> Mode | None:
        """That of the method inside."""
        return self.method.mode

    def reach(self, problem: AbstractMoment) -> int:
        """That of the method inside."""
        return self.method.reach(problem)

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """Training goes on: λ is moved long after s_0."""
        return False

    @property
    def driven_from_python(self) -> bool:
        """As the method inside."""
        return self.method.driven_from_python

    def watched(self, watch: Watch) -> "WarmRestartHyperGradient":
        """The method inside, watched."""
        return WarmRestartHyperGradient(self.method.watched(watch))

    def written(
        self, problem: AbstractMoment, hyper: Hyper, folder: str | None
    ) -> tuple[Planned, ...]:
        """As the method inside."""
        return self.method.written(problem, hyper, folder)

    def cost(self, parts: Parts) -> Forecast | None:
        """That of the method inside."""
        return self.method.cost(parts)

    @property
    def cost_unknown(self) -> str:
        """That of the method inside."""
        return self.method.cost_unknown

    def init(self, problem: AbstractMoment, hyper: Hyper) -> WarmRun:
        """The start of the first run, Φ_0(λ)."""
        zero = jnp.zeros((), jnp.int32)
        return WarmRun(problem.init(hyper), zero, self.method.init(problem, hyper))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: WarmRun
    ) -> tuple[Estimate, WarmRun]:
        """One estimate of the method inside, over the next T steps."""
        inner = problem.going_on(carry.state).later(carry.t)
        estimate, inside = self.method.estimate(inner, hyper, carry.carry)
        return estimate, WarmRun(estimate.aux.state, _later(carry.t, problem.horizon), inside)

    def complaint(self, stats: dict[str, float]) -> HyperGradientError | None:
        """That of the method inside."""
        return self.method.complaint(stats)

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: WarmRun
    ) -> tuple[PyTree, Params]:
        """The objective where training stands."""
        params = problem.dynamics.output(carry.state)
        if self.driven_from_python:
            return evaluate(problem, hyper, params), params
        return problem.evaluate(params, hyper), params

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


def _later(t: Array, steps: int) -> Array:
    """On the host where t is known: no program is compiled for a sum."""
    return t + steps if is_traced(t) else tree.known(int(t) + steps, np.int32)
