"""Gradient descent with momentum, whose steps can be undone.

    m_{t+1} = μ_t m_t + ∇_w L(w_t, λ, b_t),    w_{t+1} = w_t - η_t m_{t+1}

Backwards the same two lines give w_t from (w_{t+1}, m_{t+1}), then m_t by a division by μ, so that
the way back needs no stored states (section 3 of arXiv 1502.03492). In floats every division
enlarges the rounding error by 1/μ: `reversal_error` says how far that goes, and
`rfho.Anchored` keeps a state often enough. `ReversibleDescent` has no such error.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho.dynamics.base import AbstractDescent, Keep, Way
from rfho.dynamics.initial import as_init, trained
from rfho.dynamics.inner_gradient import InnerGradient, Slope, way_through_gradient
from rfho.typing import Batch, Hyper, Loss, Params, PyTree, Scalar, Step

Coefficient = Callable[[Hyper, Step], PyTree]
"""``(hyper, t) -> `` a scalar for all parameters, or a tree prefix of them with one for each leaf."""


class HeavyBallState(NamedTuple):
    """Parameters, velocity, and the number of the step that comes next.

    Attributes:
        params: w_t.
        velocity: m_t, zero at first.
        t: steps done so far.
    """

    params: Params
    velocity: Params
    t: Int[Array, ""]


class HeavyBall(AbstractDescent):
    """Gradient descent with momentum on ``loss``; the trajectory of ``optax.sgd(rate, momentum)``.

    Use it instead of `Descent` where memory is short: with `rfho.Anchored` the reverse sweep undoes
    steps instead of storing them. With the convention m ← γ m - (1 - γ) g of arXiv 1502.03492 the
    rate is (1 - γ) times theirs.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the inner loss L.
        rate: η, a function ``(hyper, t)`` of hyperparameters and step that gives a scalar, or a
            tree prefix of the parameters with a scalar or an array per leaf.
        momentum: μ, likewise with one scalar per leaf, 0 < μ <= 1.
        init: the initial parameters, or a function ``hyper -> params`` when they are learned.

    Cost:
        A step costs one gradient; the way back one Hessian-vector product, by forward-over-reverse,
        and one more gradient unless it is kept. To undo a step costs the gradient alone, which the
        way back shares.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> dynamics = rfho.HeavyBall(
        ...     loss=lambda w, hyper, batch: 0.5 * (w - 1) ** 2,
        ...     rate=lambda hyper, t: hyper["lr"],
        ...     momentum=lambda hyper, t: hyper["momentum"],
        ...     init=jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=2
        ... )
        >>> hyper = {"lr": 0.5, "momentum": 0.5}
        >>> rfho.hyper_gradient(problem, hyper).aux.params.tolist()  # 0, then 1/2, then 1
        1.0
    """

    inner: InnerGradient
    rate: Coefficient
    momentum: Coefficient
    _init: Any

    def __init__(
        self,
        loss: Loss,
        rate: Coefficient,
        momentum: Coefficient,
        *,
        init: Params | Callable[[Hyper], Params],
    ) -> None:
        for name, function in (("loss", loss), ("rate", rate), ("momentum", momentum)):
            if not callable(function):
                raise TypeError(
                    f"HeavyBall got {name}={function!r}, but {name} must be a function"
                    + (": write lambda hyper, t: ..." if name != "loss" else "")
                )
        self.inner = InnerGradient(loss)
        self.rate = rate
        self.momentum = momentum
        self._init = as_init(init)

    def init(self, hyper: Hyper) -> HeavyBallState:
        """s_0: initial parameters at rest."""
        params = trained(self._init(hyper))
        return HeavyBallState(params, tree.zeros_like(params), jnp.zeros((), jnp.int32))

    def step(self, state: HeavyBallState, hyper: Hyper, batch: Batch) -> HeavyBallState:
        """s_t: one gradient, one update."""
        return self.update(state, self.gradient(state.params, hyper, batch), hyper)

    def output(self, state: HeavyBallState) -> Params:
        """w_t."""
        return state.params

    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L(w, λ, b)."""
        return self.inner.value(params, hyper, batch)

    def gradient(self, params: Params, hyper: Hyper, batch: Batch) -> PyTree:
        """∇_w L(w, λ, b)."""
        return self.inner.at(params, hyper, batch).gradient

    def update(self, state: HeavyBallState, gradient: PyTree, hyper: Hyper) -> HeavyBallState:
        """The velocity m ← μ m + g and the parameters w ← w - η m."""
        rate = spread(self.rate(hyper, state.t), state.params, "rate")
        momentum = spread(self.momentum(hyper, state.t), state.params, "momentum")
        velocity = jax.tree.map(lambda μ, m, g: μ * m + g, momentum, state.velocity, gradient)
        params = jax.tree.map(lambda w, η, m: w - η * m, state.params, rate, velocity)
        return HeavyBallState(params, velocity, state.t + 1)

    def way(self, keep: Keep) -> Way:
        """Reverse mode through the update, mixed mode through the gradient; and back in floats."""

        def invert(
            state: HeavyBallState, hyper: Hyper, batch: Batch
        ) -> tuple[HeavyBallState, PyTree]:
            t = state.t - 1
            rate = spread(self.rate(hyper, t), state.params, "rate")
            momentum = spread(self.momentum(hyper, t), state.params, "momentum")
            params = jax.tree.map(lambda w, η, m: w + η * m, state.params, rate, state.velocity)
            slope, memory = self.inner.remember(params, hyper, batch, keep=keep)
            undo = lambda m, g, μ: (m - g) / μ  # noqa: E731
            velocity = jax.tree.map(undo, state.velocity, slope.gradient, momentum)
            return HeavyBallState(params, velocity, t), memory

        return way_through_gradient(self.inner, self._take, keep)._replace(invert=invert)

    def _take(self, state: HeavyBallState, slope: Slope, hyper: Hyper) -> HeavyBallState:
        return self.update(state, slope.gradient, hyper)


def spread(coefficient: PyTree, params: Params, name: str) -> PyTree:
    """One coefficient for each leaf of ``params``, in its dtype.

    Raises:
        ValueError: ``coefficient`` is no tree prefix of ``params``.
    """
    try:
        each = jax.tree.broadcast(coefficient, params)
    except ValueError as error:
        raise ValueError(
            f"{name} has structure {jax.tree.structure(coefficient)}, but it must be a scalar or a tree "
            f"prefix of the parameters, which have structure {jax.tree.structure(params)}"
        ) from error
    return jax.tree.map(lambda c, w: jnp.asarray(c).astype(w.dtype), each, params)


def reversal_error(momentum: float, steps: int, dtype: Any = jnp.float32) -> float:
    """The relative error of a state from which ``steps`` steps were undone in floats.

    Every undone step enlarges the error so far by 1/μ and adds a rounding error ε of its own; as
    these fall at random, together √(Σ_{j<K} μ^-2j) ε, which soon is about ε μ^-K. It is an estimate
    on the safe side, in order of magnitude: "Training backwards" in the documentation measures it.

    Args:
        momentum: μ, 0 < μ <= 1; the least that training sees.
        steps: K, the number of steps undone.
        dtype: that of the state.

    Example:
        >>> import rfho
        >>> f"{rfho.dynamics.reversal_error(0.9, 20):.0e}, {rfho.dynamics.reversal_error(0.9, 100):.0e}"
        '2e-06, 9e-03'
    """
    epsilon = float(jnp.finfo(dtype).eps)
    if momentum == 1:
        return epsilon * math.sqrt(steps)
    return epsilon * math.sqrt((momentum ** (-2 * steps) - 1) / (momentum**-2 - 1))


def steps_undone_within(tolerance: float, momentum: float, dtype: Any = jnp.float32) -> int:
    """The most steps K >= 1 that can be undone before `reversal_error` exceeds ``tolerance``.

    Args:
        tolerance: a relative error.
        momentum: μ, 0 < μ <= 1; the least that training sees.
        dtype: that of the state.

    Example:
        >>> import rfho
        >>> (
        ...     rfho.dynamics.steps_undone_within(1e-6, 0.9),
        ...     rfho.dynamics.steps_undone_within(1e-6, 0.98),
        ... )
        (13, 33)
    """
    ratio = (tolerance / float(jnp.finfo(dtype).eps)) ** 2
    if momentum == 1:
        return max(1, int(ratio))
    growth = 1 + ratio * (momentum**-2 - 1)
    return max(1, int(math.log(growth) / (-2 * math.log(momentum))))
