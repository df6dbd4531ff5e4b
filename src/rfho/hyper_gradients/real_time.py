"""Real-Time HO: forward mode read while training goes on (section 4.3 of arXiv 1703.01785)."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.forward import Pushed, coordinates, push_steps, read_along, start
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, Mode, aux_of
from rfho.problem.moment import AbstractMoment
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
    reset: Z_t keeps what earlier hyperparameters left in it, fading by γ per step:

    .. math:: Z_t = \gamma A_t Z_{t-1} + B_t

    Args:
        every: Δ, inner steps between outer updates.
        discount: γ in [0, 1]. At 1, the default, nothing fades; at 0 only the last step counts, which
            with ``every=1`` is hypergradient descent (arXiv 1703.04782) on the outer objective.
            Between them, as in MARTHE (arXiv 1910.08525, where it is called μ), less is remembered
            of dynamics under hyperparameters long since changed, and a tangent that would explode
            can be held.

    Cost:
        One training run in all, at 1 + about 1.5 m times its plain cost; memory O(m) states.
        Biased, as Z_t mixes derivatives taken at earlier λ, and by the discount; with
        ``every=horizon`` and no discount it is `ForwardHyperGradient`.

    Aux:
        ``stats["tangent_norm"]``: ‖Z_t‖; ``stats["t"]``: inner steps done.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.RealTimeHyperGradient(every=20)
    """

    every: int = eqx.field(static=True)
    discount: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        positive_int(self.every, "every", type(self).__name__)
        if not isinstance(self.discount, float | int) or not 0 <= self.discount <= 1:
            raise ValueError(
                f"RealTimeHyperGradient got discount={self.discount!r}, but it must be a number from 0 to 1"
            )

    @property
    def mode(self) -> Mode:
        """Forward."""
        return Mode.FORWARD

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """Training goes on: λ is moved long after s_0."""
        return False

    def cost(self, parts: Parts) -> Forecast:
        """All directions over Δ steps."""
        return parts.of_forward(parts.m, None, steps=self.every)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> RealTimeRun:
        """s_0, Z_0 and t = 0."""
        axes = coordinates(hyper)
        pushed = start(problem, hyper, axes.directions(jnp.arange(axes.number)))
        return RealTimeRun(pushed, jnp.zeros((), jnp.int32))

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: RealTimeRun
    ) -> tuple[Estimate, RealTimeRun]:
        """Δ further steps under the current λ, then the read-out."""
        axes = coordinates(hyper)
        directions = axes.directions(jnp.arange(axes.number))
        pushed = push_steps(
            problem,
            hyper,
            carry.pushed,
            directions=directions,
            count=self.every,
            first=carry.t,
            discount=self.discount,
        )
        reading, derivatives = read_along(problem, hyper, pushed, directions=directions)
        after = RealTimeRun(pushed, carry.t + self.every)
        stats = {"tangent_norm": tree.norm(pushed.tangent), "t": after.t}
        aux = aux_of(problem, pushed.state, stats)
        hypergradient = axes.assemble(problem, derivatives)
        return Estimate(problem.values(reading.value), hypergradient, aux), after

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: RealTimeRun
    ) -> tuple[PyTree, Params]:
        """The objective where the run stands."""
        params = problem.dynamics.output(carry.pushed.state)
        return problem.evaluate(params, hyper), params

    def limit(self, problem: AbstractMoment) -> int:
        """One training run of T steps."""
        return problem.horizon // self.every
