r"""Proximal gradient descent with momentum, for losses with a penalty that has no gradient (FISTA).

.. math:: w_{t+1} = \operatorname{prox}_{\eta\Omega}(y_t - \eta \nabla L(y_t)), \quad
          y_{t+1} = w_{t+1} + \tfrac{\theta_t - 1}{\theta_{t+1}} (w_{t+1} - w_t)

(Beck and Teboulle, 2009). Momentum begins anew whenever it points uphill (O'Donoghue and Candès, arXiv 1204.3982).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rfho._programs import trees as tree
from rfho.dynamics.base import AbstractDynamics, Keep, Way, way_through_step
from rfho.dynamics.initial import as_init, trained
from rfho.dynamics.prox import Prox
from rfho.typing import Batch, Hyper, Loss, Params, Scalar


class ProximalState(NamedTuple):
    """Where proximal descent stands.

    Attributes:
        params: w_t.
        point: y_t, from which the next step is taken.
        momentum: θ_t.
    """

    params: Params
    point: Params
    momentum: Scalar


class Proximal(AbstractDynamics):
    """Descent on ``loss`` plus a penalty that is given by its proximal operator.

    For the Lasso and its kin, and for constraints on parameters. Differentiate it where it ends, on the support
    alone: ``ImplicitHyperGradient(rfho.solvers.GMRES(), condition=rfho.hyper_gradients.OnSupport())``.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the part of the inner loss that has a gradient.
        prox: ``(point, rate, hyper) -> point`` for the other part, as `rfho.dynamics.lasso` makes it.
        rate: η, a number, a scalar array, or a function ``hyper -> η``; at most 1 / the largest curvature of
            ``loss``.
        init: the initial parameters, or a function ``hyper -> params``.

    Cost:
        A step costs one gradient. Through training itself (`rfho.ReverseHyperGradient`) it is differentiated too,
        support changes included as kinks.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> dynamics = rfho.dynamics.Proximal(
        ...     lambda w, hyper, batch: 0.5 * jnp.sum((w - batch) ** 2),
        ...     rfho.dynamics.lasso(lambda hyper: hyper["l1"]),
        ...     0.5,
        ...     init=jnp.zeros(2),
        ... )
        >>> objective = lambda w, hyper, batch: jnp.sum(w)
        >>> problem = rfho.Problem(dynamics, objective, jnp.array([2.0, 0.1]), None, horizon=60)
        >>> method = rfho.ImplicitHyperGradient(
        ...     rfho.solvers.GMRES(), condition=rfho.hyper_gradients.OnSupport()
        ... )
        >>> estimate = rfho.hyper_gradient(problem, {"l1": 0.5}, method)
        >>> float(estimate.value), round(float(estimate.hypergradient["l1"]), 4)  # w = (2 - l1, 0)
        (1.5, -1.0)
    """

    loss: Loss
    prox: Prox
    rate: Any
    _init: Any

    def __init__(self, loss: Loss, prox: Prox, rate: Any, *, init: Any) -> None:
        for name, function in (("loss", loss), ("prox", prox)):
            if not callable(function):
                raise TypeError(f"Proximal got {name}={function!r}, but it must be a function")
        if isinstance(rate, int | float) and not 0 < rate < float("inf"):
            raise ValueError(f"Proximal got rate={rate!r}, but it must be a positive number")
        self.loss = loss
        self.prox = prox
        self.rate = rate
        self._init = as_init(init)

    def init(self, hyper: Hyper) -> ProximalState:
        """s_0: initial parameters at rest."""
        params = trained(self._init(hyper))
        return ProximalState(params, params, jnp.ones(()))

    def once(self, params: Params, hyper: Hyper, batch: Batch) -> Params:
        """One step without momentum, whose fixed points are the solutions."""
        rate: Any = self.rate(hyper) if callable(self.rate) else self.rate
        slope = jax.grad(self.loss)(params, hyper, batch)
        return self.prox(tree.subtract(params, tree.scale(rate, slope)), rate, hyper)

    def step(self, state: ProximalState, hyper: Hyper, batch: Batch) -> ProximalState:
        """s_t: a step from y, then momentum."""
        params = self.once(state.point, hyper, batch)
        moved = tree.subtract(params, state.params)
        uphill = tree.dot(tree.subtract(state.point, params), moved) > 0
        begun = jnp.where(jax.lax.stop_gradient(uphill), 1.0, state.momentum)
        momentum = (1 + jnp.sqrt(1 + 4 * begun**2)) / 2
        point = tree.add(params, tree.scale((begun - 1) / momentum, moved))
        return ProximalState(params, point, momentum.astype(state.momentum.dtype))

    def output(self, state: ProximalState) -> Params:
        """w_t."""
        return state.params

    def way(self, keep: Keep) -> Way:
        """The vjp of the step."""
        return way_through_step(self.step, keep)
