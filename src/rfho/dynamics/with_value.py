"""Gradient descent under optimisers that look at the loss itself.

Polyak's step, MoMo and line searches ask for the value of the loss, or for the loss as a
function, beside its gradient. Their steps are more than a gradient followed by an update, so that
the way back is the vjp of the whole step.
"""

from collections.abc import Callable

import jax
import optax

from rfho._programs.safe_roots import safe_roots
from rfho.dynamics.base import AbstractMinimisation, Keep, Way, way_through_step
from rfho.dynamics.descent import Descent, DescentState
from rfho.typing import Batch, Hyper, Loss, Params, Scalar


class DescentWithValue(AbstractMinimisation):
    """`Descent` for optimisers that need more than a gradient: `optax.polyak_sgd`, `optax.lbfgs`.

    Optax's ``update`` is given ``value`` and ``grad`` at the current parameters, and ``value_fn``, the
    loss as a function of the parameters. Where an optimiser needs none of these, `Descent` gives the
    same hypergradient in less time.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the inner loss L.
        optim: ``hyper -> optax.GradientTransformationExtraArgs``.
        init: the initial parameters, or a function ``hyper -> params`` when they are learned.

    Cost:
        A step costs one gradient and what the optimiser asks for; the way back costs the vjp of
        that, reverse over reverse. A line search is a loop of unknown length: it can be
        differentiated in forward mode only.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.dynamics.DescentWithValue(
        ...     loss=lambda w, hyper, batch: (w - hyper) ** 2,
        ...     optim=lambda hyper: optax.polyak_sgd(),
        ...     init=jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=1
        ... )
        >>> float(rfho.hyper_gradient(problem, 3.0).hypergradient)  # half of the way to λ
        0.5
    """

    plain: Descent

    def __init__(
        self,
        loss: Loss,
        optim: Callable[[Hyper], optax.GradientTransformation],
        init: Params | Callable[[Hyper], Params],
    ) -> None:
        self.plain = Descent(loss, optim, init)

    def init(self, hyper: Hyper) -> DescentState:
        """s_0: initial parameters and empty slots."""
        return self.plain.init(hyper)

    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L(w, λ, b)."""
        return self.plain.loss(params, hyper, batch)

    def step(self, state: DescentState, hyper: Hyper, batch: Batch) -> DescentState:
        """s_t: value and gradient of the loss, one update that sees both."""

        def loss(params: Params) -> Scalar:
            return self.plain.loss(params, hyper, batch)

        optim = safe_roots(self.plain.optim(hyper))
        value, gradient = jax.value_and_grad(loss)(state.params)
        updates, slots = optim.update(
            gradient, state.slots, state.params, value=value, grad=gradient, value_fn=loss
        )
        return DescentState(optax.apply_updates(state.params, updates), slots)

    def output(self, state: DescentState) -> Params:
        """w_t."""
        return state.params

    def way(self, keep: Keep) -> Way:
        """The vjp of the whole step."""
        return way_through_step(self.step, keep)
