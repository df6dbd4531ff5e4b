"""Any dynamics whose batches carry weights, which stand beside λ so that a step can be pulled back to them."""

from typing import Any, NamedTuple

import equinox as eqx
from jax import Array
from jaxtyping import Float

from rfho.attribution.weights import Weighed
from rfho.dynamics import AbstractDescent, AbstractDynamics, Keep, Variables, Way
from rfho.dynamics.base import way_through_step
from rfho.dynamics.inner_gradient import InnerGradient, Slope, way_through_gradient
from rfho.typing import Batch, Hyper, Params, Scalar, State


class WeighedHyper(NamedTuple):
    """What one step sees: λ, and the weights of the examples of its batch.

    Attributes:
        hyper: λ.
        weights: ε.
    """

    hyper: Hyper
    weights: Float[Array, " size"]


class WeighedDynamics(AbstractDynamics):
    """The same dynamics, whose λ is a `WeighedHyper`.

    Attributes:
        plain: the dynamics themselves; their loss is to be `weighted`.
        carries: whether the loss also hands arrays on (`rfho.dynamics.Variables`), which an update does
            not see.
    """

    plain: AbstractDynamics
    carries: bool = eqx.field(static=True)

    @staticmethod
    def of(plain: AbstractDynamics, state: State) -> "WeighedDynamics":
        """Of dynamics with states like ``state``."""
        return WeighedDynamics(plain, isinstance(getattr(state, "params", None), Variables))

    def init(self, hyper: WeighedHyper) -> State:
        """s_0."""
        return self.plain.init(hyper.hyper)

    def step(self, state: State, hyper: WeighedHyper, batch: Batch) -> State:
        """A step on the weighed batch."""
        return self.plain.step(state, hyper.hyper, Weighed(batch, hyper.weights))

    def output(self, state: State) -> Params:
        """w."""
        return self.plain.output(state)

    def way(self, keep: Keep) -> Way:
        """Through the gradient in mixed mode where there is one; otherwise the vjp of the step."""
        plain = self.plain
        if self.carries or not isinstance(plain, AbstractDescent):
            return way_through_step(self.step, keep)

        def loss(params: Params, hyper: WeighedHyper, batch: Batch) -> Scalar:
            return plain.loss(params, hyper.hyper, Weighed(batch, hyper.weights))

        def take(state: Any, slope: Slope, hyper: WeighedHyper) -> Any:
            return plain.update(state, slope.gradient, hyper.hyper)

        return way_through_gradient(InnerGradient(loss), take, keep)
