"""Training that starts where the last training ended.

Batch methods begin every training run at Φ_0(λ). As λ moves little from one outer step to the next,
the last trained state is a far better start: after many outer steps training is done, and its
horizon can be short (as the original package's ``warm_start``, and stocBiO, arXiv 2010.07962).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho.dynamics import AbstractDynamics, Keep, Way
from rfho.errors import HyperGradientError
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate
from rfho.problem.objective import Objective, is_objective
from rfho.problem.problem import Problem
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State


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


class WarmRestart(AbstractHyperGradient):
    """Any batch method, with each training run starting from the end of the one before.

    Args:
        method: a method that trains T steps for each estimate, such as `ReverseHyperGradient`.

    Cost:
        That of ``method``. Biased: the state from which a run starts depends on earlier λ, but is
        taken as given. So learned initial parameters receive nothing but through the objective, and
        as T grows the bias fades like that of `TruncatedHyperGradient` with ``window=T``.

    Aux:
        That of ``method``.

    Example:
        >>> import rfho
        >>> reverse = rfho.hyper_gradients.ReverseHyperGradient()
        >>> method = rfho.hyper_gradients.WarmRestart(reverse)
    """

    method: AbstractHyperGradient

    def __check_init__(self) -> None:
        if not isinstance(self.method, AbstractHyperGradient):
            raise TypeError(
                f"WarmRestart got method={self.method!r}, but it must be one of rfho.hyper_gradients"
            )

    def init(self, problem: Problem, hyper: Hyper) -> WarmRun:
        """The start of the first run, Φ_0(λ).

        Raises:
            TypeError: the method inside is an online one, which never restarts.
        """
        if self.method.limit(problem) is not None:
            raise TypeError(
                f"WarmRestart got a {type(self.method).__name__}, which trains once and never restarts: "
                "use it as it is"
            )
        state = problem.init(hyper)
        inner = _continued(problem, state, jnp.zeros((), jnp.int32))
        return WarmRun(state, jnp.zeros((), jnp.int32), self.method.init(inner, hyper))

    def estimate(self, problem: Problem, hyper: Hyper, carry: WarmRun) -> tuple[Estimate, WarmRun]:
        """One estimate of the method inside, over the next T steps."""
        inner = _continued(problem, carry.state, carry.t)
        estimate, inner_carry = self.method.estimate(inner, hyper, carry.carry)
        state = estimate.aux.params
        aux = estimate.aux._replace(params=problem.dynamics.output(state))
        after = WarmRun(state, carry.t + problem.horizon, inner_carry)
        return estimate._replace(aux=aux), after

    def complaint(self, stats: dict[str, float]) -> HyperGradientError | None:
        """That of the method inside."""
        return self.method.complaint(stats)

    def conclude(self, problem: Problem, hyper: Hyper, carry: WarmRun) -> tuple[PyTree, Params]:
        """The objective where training stands."""
        params = problem.dynamics.output(carry.state)
        return problem.evaluate(params, hyper), params

    def limit(self, problem: Problem) -> None:
        """Any number of estimates."""


class _Continued(AbstractDynamics):
    """The same steps from a given state; its output is the whole state, so that the next run can start there."""

    dynamics: AbstractDynamics
    state: State

    def init(self, hyper: Hyper) -> State:
        return self.state

    def step(self, state: State, hyper: Hyper, batch: Batch) -> State:
        return self.dynamics.step(state, hyper, batch)

    def output(self, state: State) -> Params:
        return state

    def way(self, keep: Keep) -> Way:
        return self.dynamics.way(keep)


def _continued(problem: Problem, state: State, t: Array) -> Problem:
    """The problem from ``state`` on, at batch ``t``; objectives read the parameters out of the state."""

    def reading(objective: Any) -> Any:
        if isinstance(objective, Objective):
            return Objective(reading(objective.function), objective.data)

        def read(state: State, hyper: Hyper, batch: Batch) -> Scalar:
            return objective(problem.dynamics.output(state), hyper, batch)

        return read

    objective = jax.tree.map(reading, problem.objective, is_leaf=is_objective)
    dynamics = _Continued(problem.dynamics, state)
    moved = eqx.tree_at(lambda p: (p.dynamics, p.objective), problem, (dynamics, objective))
    return moved.from_step(problem.offset + t)
