"""Momentum dynamics in integers, which run backwards to the bit (alg. 3 of arXiv 1502.03492).

Parameters and velocity are 64-bit fixed-point numbers. Additions are undone by subtractions; what
the product μ m loses goes to a buffer (`rfho.exact_momentum`): log₂(1/μ) bits per parameter and
step. Derivatives are those of

    m_{t+1} = μ_t m_t + ∇_w L(w_t, λ, b_t),    w_{t+1} = w_t - η_t m_{t+1}

at the states that the integers take: rounding counts as the identity (straight-through).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho.dynamics import exact_momentum
from rfho.dynamics import integers as fixed_point
from rfho.dynamics.base import AbstractDescent, Keep, Way
from rfho.dynamics.exact_momentum import Digits, Plan, Turn
from rfho.dynamics.heavy_ball import Coefficient, HeavyBall, HeavyBallState, spread
from rfho.dynamics.inner_gradient import Slope
from rfho.typing import Batch, Hyper, Loss, Params, PyTree, Scalar, Step


class ReversibleState(NamedTuple):
    """A state in integers, and its view in floats.

    Attributes:
        params: w_t, the view that the loss and derivatives see.
        velocity: m_t, likewise.
        t: steps done so far.
        digits: what the state really is.
        bound: for each leaf of the parameters, the bound of its buffer's head.
    """

    params: Params
    velocity: Params
    t: Int[Array, "*tasks"]
    digits: Digits
    bound: PyTree


class ReversibleDescent(AbstractDescent):
    """Gradient descent with momentum on ``loss``, in arithmetic that forgets nothing.

    Under `ReversibleHyperGradient` the way back needs no stored states. It works with every other
    method too, by its float view.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the inner loss L.
        rate: η, a function ``(hyper, t)`` of hyperparameters and step that gives a scalar, or a
            tree prefix of the parameters with a scalar or an array per leaf.
        momentum: μ, likewise with one scalar per leaf. It is rounded to a multiple of 2^-31 between
            2^-14 and 1.
        init: the initial parameters, or a function ``hyper -> params`` when they are learned.
        fraction_bits: binary places of parameters and velocity, from 16 to 56. The default is right
            to 6e-14 and reaches up to 1e5; if a number leaves this range, the view becomes NaN.

    Exactness:
        The trajectory is that of `HeavyBall` up to rounding: 2^-44 per step, and 2^-32 in the
        momentum. As a function of λ it is a staircase of steps that small; the hypergradient is the
        slope that the staircase follows.

    Cost:
        A step costs one gradient and some 20 integer operations per parameter.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> dynamics = rfho.ReversibleDescent(
        ...     loss=lambda w, hyper, batch: 0.5 * (w - 1) ** 2,
        ...     rate=lambda hyper, t: hyper["lr"],
        ...     momentum=lambda hyper, t: hyper["momentum"],
        ...     init=jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=2
        ... )
        >>> hyper = {"lr": 0.5, "momentum": 0.5}
        >>> rfho.hyper_gradient(problem, hyper).aux.params.tolist()
        1.0
    """

    smooth: HeavyBall
    fraction_bits: int = eqx.field(static=True)

    def __init__(
        self,
        loss: Loss,
        rate: Coefficient,
        momentum: Coefficient,
        *,
        init: Params | Callable[[Hyper], Params],
        fraction_bits: int = 44,
    ) -> None:
        if not isinstance(fraction_bits, int) or not 16 <= fraction_bits <= 56:
            raise ValueError(
                f"ReversibleDescent got fraction_bits={fraction_bits!r}, but it must be an int from 16 to "
                "56: there are 64 bits for both sides of the point"
            )
        self.smooth = HeavyBall(loss, rate, momentum, init=init)
        self.fraction_bits = fraction_bits

    @property
    def width(self) -> float:
        """The largest rounding of a step: of parameters and velocity, and of the momentum to 31 places."""
        return 2.0 ** -min(self.fraction_bits, 32)

    def init(self, hyper: Hyper) -> ReversibleState:
        """s_0: initial parameters at rest, an empty buffer."""
        smooth = self.smooth.init(hyper)
        params = jax.lax.stop_gradient(smooth.params)
        _refuse_complex(params)
        digits = exact_momentum.at_rest(params, self.fraction_bits)
        return self._seen(digits, smooth, exact_momentum.empty_bound(params))

    def step(self, state: ReversibleState, hyper: Hyper, batch: Batch) -> ReversibleState:
        """s_t: one gradient, one update in integers."""
        return self.update(state, self.gradient(state.params, hyper, batch), hyper)

    def output(self, state: ReversibleState) -> Params:
        """w_t."""
        return state.params

    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L(w, λ, b)."""
        return self.smooth.loss(params, hyper, batch)

    def gradient(self, params: Params, hyper: Hyper, batch: Batch) -> PyTree:
        """∇_w L(w, λ, b), computed in the same way whatever surrounds it."""
        return _isolated(self.smooth.gradient)(params, hyper, batch)

    def update(self, state: ReversibleState, gradient: PyTree, hyper: Hyper) -> ReversibleState:
        """The update in integers for values, in floats for derivatives."""
        n = self.numerators(state.params, hyper, state.t)
        bound, spill = exact_momentum.leafwise(fixed_point.room, state.params, state.bound, n)
        digits = exact_momentum.take(
            state.digits,
            jax.lax.stop_gradient(gradient),
            self._move(hyper, state.t),
            turn=Turn(n, spill, row=None),
            bits=self.fraction_bits,
        )
        smooth = self._rounded().update(_smooth(state), gradient, hyper)
        return self._seen(digits, smooth, bound)

    def way(self, keep: Keep) -> Way:
        """That of `HeavyBall`, at the states that the integers take."""
        rounded = self._rounded()
        way = rounded.way(keep)

        def remember(
            state: ReversibleState, hyper: Hyper, batch: Batch
        ) -> tuple[ReversibleState, PyTree]:
            slope, memory = rounded.inner.remember(state.params, hyper, batch, keep=keep)
            return self.update(state, slope.gradient, hyper), memory

        def pull_back(
            adjoint: PyTree, state: ReversibleState, memory: PyTree, hyper: Hyper, batch: Batch
        ) -> tuple[PyTree, PyTree]:
            before, by_hyper = way.pull_back(_smooth(adjoint), _smooth(state), memory, hyper, batch)
            return adjoint._replace(params=before.params, velocity=before.velocity), by_hyper

        def again(state: ReversibleState, memory: Slope, hyper: Hyper) -> ReversibleState:
            return self.update(state, memory.gradient, hyper)

        return Way(remember, pull_back, again=again if keep is Keep.GRADIENTS else None)

    def plan(self, params: Params, hyper: Hyper, horizon: int) -> Plan:
        """How ``horizon`` steps use the buffer; ``params`` gives structure alone."""
        return exact_momentum.planned(lambda t: self.numerators(params, hyper, t), params, horizon)

    def take(
        self, digits: Digits, hyper: Hyper, batch: Batch, *, t: Step, turn: Turn, like: Params
    ) -> Digits:
        """Step t in integers; ``like`` gives dtypes alone."""
        params = exact_momentum.in_floats(digits.params, like, self.fraction_bits)
        gradient, move = self.gradient(params, hyper, batch), self._move(hyper, t)
        return exact_momentum.take(digits, gradient, move, turn=turn, bits=self.fraction_bits)

    def undo(
        self,
        digits: Digits,
        hyper: Hyper,
        batch: Batch,
        *,
        t: Step,
        turn: Turn,
        tape: PyTree,
        like: Params,
    ) -> tuple[Digits, PyTree]:
        """Step t undone: the digits before it, and what ``Keep.GRADIENTS`` keeps of it.

        ``tape`` holds the 16 bits that every head spilled before the step, if the turn says so.
        """
        gradient = lambda params: self.gradient(params, hyper, batch)  # noqa: E731
        digits, g = exact_momentum.undo(
            digits,
            gradient,
            self._move(hyper, t),
            turn=turn,
            words=tape,
            like=like,
            bits=self.fraction_bits,
        )
        return digits, Slope(g, None)

    def view(self, digits: Digits, like: ReversibleState) -> ReversibleState:
        """The state ``like`` with other digits."""
        params = exact_momentum.in_floats(digits.params, like.params, self.fraction_bits)
        velocity = exact_momentum.in_floats(digits.velocity, like.params, self.fraction_bits)
        return like._replace(params=params, velocity=velocity, digits=digits)

    def numerators(self, params: Params, hyper: Hyper, t: Step) -> PyTree:
        """The numerators n of μ_t = n/d, for each leaf."""
        momentum = spread(self.smooth.momentum(hyper, t), params, "momentum")
        for path, each in jax.tree_util.tree_leaves_with_path(momentum):
            if each.shape != ():
                raise ValueError(
                    f"{tree.path_of(path, 'momentum')} has shape {each.shape}, but ReversibleDescent takes "
                    "one momentum for each leaf of the parameters: return a scalar"
                )
        return jax.tree.map(fixed_point.numerator, jax.lax.stop_gradient(momentum))

    def _seen(self, digits: Digits, smooth: HeavyBallState, bound: PyTree) -> ReversibleState:
        # Values from the integers, derivatives from the floats.
        state = ReversibleState(smooth.params, smooth.velocity, smooth.t, digits, bound)
        exact = self.view(digits, state)
        see = lambda name: jax.tree.map(  # noqa: E731
            _straight_through, getattr(exact, name), getattr(smooth, name)
        )
        return state._replace(params=see("params"), velocity=see("velocity"))

    def _rounded(self) -> HeavyBall:
        # The float dynamics with the momentum that the integers can represent.
        def momentum(hyper: Hyper, t: Step) -> PyTree:
            return jax.tree.map(_rounded_momentum, self.smooth.momentum(hyper, t))

        return eqx.tree_at(lambda smooth: smooth.momentum, self.smooth, momentum)

    def _move(self, hyper: Hyper, t: Step) -> Callable[[Params], PyTree]:
        frozen = jax.lax.stop_gradient(hyper)
        rate = _isolated(self.smooth.rate)(frozen, jnp.asarray(t))
        return lambda m: jax.tree.map(jnp.multiply, spread(rate, m, "rate"), m)


def _refuse_complex(params: Params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.iscomplexobj(leaf):
            raise TypeError(
                f"{tree.path_of(path, 'init')} has dtype {leaf.dtype}, which ReversibleDescent's integers do not "
                "hold: use rfho.HeavyBall, or real and imaginary parts as two arrays"
            )


def _smooth(state: ReversibleState) -> HeavyBallState:
    return HeavyBallState(state.params, state.velocity, state.t)


@jax.custom_jvp
def _straight_through(exact: Array, smooth: Array) -> Array:
    """The value of ``exact``, the derivative of ``smooth``."""
    return exact


@_straight_through.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[0], tangents[1]


def _rounded_momentum(momentum: Any) -> Array:
    momentum = jnp.asarray(momentum)
    n = fixed_point.numerator(jax.lax.stop_gradient(momentum))
    return _straight_through(n.astype(momentum.dtype) / float(fixed_point.DENOMINATOR), momentum)


def _isolated(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, compiled by itself.

    What a compiler fuses decides the last bit. Behind barriers the gradient is computed in the same
    way on the way forward and back, whatever surrounds it.
    """

    def barred(*args: Any) -> Any:
        arrays, rest = eqx.partition(args, eqx.is_array)
        args = eqx.combine(jax.lax.optimization_barrier(arrays), rest)
        return jax.lax.optimization_barrier(function(*args))

    return barred
