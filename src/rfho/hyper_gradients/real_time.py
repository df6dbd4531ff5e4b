"""Real-Time HO: forward mode read while training goes on (section 4.3 of arXiv 1703.01785)."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho import tree
from rfho.hyper_gradients.base import AbstractHyperGradient, Aux, Estimate, positive_int
from rfho.problem import Problem
from rfho.tangent import Pushed, coordinates, push_steps, read_along, start
from rfho.typing import Hyper, Params, PyTree


class RealTimeRun(NamedTuple):
    """The one training run of RTHO: state, tangent and step count are never reset.

    Attributes:
        pushed: s_t and Z_t.
        t: the steps done so far.
    """

    pushed: Pushed
    t: Int[Array, ""]


class RealTimeHyperGradient(AbstractHyperGradient):
    r"""Hypergradients every Δ steps of a single training run, which they steer.

    At t = Δ, 2Δ, … the tangent that was pushed along gives :math:`\partial_\lambda E + \partial_s
    E\, Z_t`; the tuner updates λ, projects, and training goes on from where it stands. Nothing is
    reset: Z_t keeps what earlier hyperparameters left in it.

    Args:
        every: Δ, inner steps between outer updates.

    Cost:
        One training run in all, at 1 + about 1.5 m times its plain cost; memory O(m) states.
        Biased, as Z_t mixes derivatives taken at earlier λ; with ``every=horizon`` it is
        `ForwardHyperGradient`.

    Aux:
        ``stats["tangent_norm"]``: ‖Z_t‖; ``stats["t"]``: inner steps done.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.RealTimeHyperGradient(every=20)
    """

    every: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        positive_int(self.every, "every", type(self).__name__)

    def init(self, problem: Problem, hyper: Hyper) -> RealTimeRun:
        """s_0, Z_0 and t = 0."""
        axes = coordinates(hyper)
        pushed = start(problem, hyper, axes.directions(jnp.arange(axes.count)))
        return RealTimeRun(pushed, jnp.zeros((), jnp.int32))

    def estimate(
        self, problem: Problem, hyper: Hyper, carry: RealTimeRun
    ) -> tuple[Estimate, RealTimeRun]:
        """Δ further steps under the current λ, then the read-out."""
        axes = coordinates(hyper)
        directions = axes.directions(jnp.arange(axes.count))
        steps = carry.t + jnp.arange(self.every)
        pushed = push_steps(problem, hyper, carry.pushed, directions=directions, steps=steps)
        reading, derivatives = read_along(problem, hyper, pushed, directions=directions)
        after = RealTimeRun(pushed, carry.t + self.every)
        stats = {"tangent_norm": tree.norm(pushed.tangent), "t": after.t}
        aux = Aux(problem.dynamics.output(pushed.state), stats)
        hypergradient = axes.assemble(problem, derivatives)
        return Estimate(problem.values(reading.value), hypergradient, aux), after

    def conclude(self, problem: Problem, hyper: Hyper, carry: RealTimeRun) -> tuple[PyTree, Params]:
        """The objective where the run stands."""
        params = problem.dynamics.output(carry.pushed.state)
        return problem.evaluate(params, hyper), params

    def limit(self, problem: Problem) -> int:
        """One training run of T steps."""
        return problem.horizon // self.every
