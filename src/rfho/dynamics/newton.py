"""Newton's method with conjugate gradients and halved steps, for inner problems that are small and convex.

    H d = -g  by at most P products,    w ← w + a d,    a the first of 1, 1/2, 1/4, … that lowers L enough

(Nocedal and Wright, Numerical Optimization, alg. 7.1). Where gradient descent takes hundreds of steps at a
rate that somebody has to choose, a few of these end at the minimum to rounding; under a warm start, where λ
has moved a little, one or two do. That is what implicit differentiation asks for.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.sparse.linalg import cg

from rfho._programs import trees as tree
from rfho.dynamics.base import AbstractMinimisation, Keep, Way, way_through_step
from rfho.dynamics.initial import as_init, trained
from rfho.errors import positive_int
from rfho.typing import Batch, Hyper, Loss, Params, PyTree, Scalar

_ENOUGH = 1e-4
"""The share of the decrease that the slope promises (Armijo)."""

_ROUNDING = 4.0
"""So many rounding errors of the loss are no increase."""


class NewtonState(NamedTuple):
    """Parameters w_t; Newton's method has no slots."""

    params: Params


class Newton(AbstractMinimisation):
    """Newton's method on ``loss``, without a rate.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the inner loss L, with second derivatives. Where it is not
            convex, a step that would go up follows the gradient instead.
        init: the initial parameters, or a function ``hyper -> params``.
        products: P, of the Hessian with a vector, in one step at most.
        halvings: how often a step that does not lower the loss is halved; after that w stays.

    Cost:
        A step costs one gradient, up to P products (about two gradients each) and a loss for each halving. Made
        for `rfho.ImplicitHyperGradient`, whose memory does not grow with the steps. Reverse mode takes the
        solve of a step as exact.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.dynamics.Newton(ridge, init=jnp.zeros(()))
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=1
        ... )
        >>> estimate = rfho.hyper_gradient(problem, {"l2": 1.0}, rfho.ImplicitHyperGradient())
        >>> float(estimate.value), float(estimate.hypergradient["l2"])  # w = 1 / (1 + l2)
        (0.5, -0.25)
    """

    function: Loss
    products: int = eqx.field(static=True)
    halvings: int = eqx.field(static=True)
    _init: Any

    def __init__(self, loss: Loss, init: Any, *, products: int = 50, halvings: int = 10) -> None:
        if not callable(loss):
            raise TypeError(
                f"Newton got loss={loss!r}, but loss must be a function (params, hyper, batch)"
            )
        self.function = loss
        self.products = positive_int(products, "products", "Newton")
        self.halvings = positive_int(halvings, "halvings", "Newton")
        self._init = as_init(init)

    def init(self, hyper: Hyper) -> NewtonState:
        """s_0: the initial parameters."""
        return NewtonState(trained(self._init(hyper)))

    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L(w, λ, b)."""
        return self.function(params, hyper, batch)

    def step(self, state: NewtonState, hyper: Hyper, batch: Batch) -> NewtonState:
        """s_t: one direction, as far along it as the loss falls."""
        w = state.params
        loss = lambda w: self.function(w, hyper, batch)  # noqa: E731
        slope, product = jax.linearize(jax.grad(loss), w)
        direction = self._direction(slope, product)
        length = self._length(loss, w, slope=slope, direction=direction)
        return NewtonState(tree.add(w, tree.scale(length, direction)))

    def output(self, state: NewtonState) -> Params:
        """w_t."""
        return state.params

    def way(self, keep: Keep) -> Way:
        """The vjp of the whole step."""
        return way_through_step(self.step, keep)

    def _direction(self, slope: PyTree, product: Any) -> PyTree:
        """-H⁻¹ g, ever more exact as g falls, or -g if that does not go down."""
        size = jax.lax.stop_gradient(tree.norm(slope))
        down = tree.scale(-1.0, slope)
        start = jax.tree.map(jnp.zeros_like, down)
        # min(1/10, ‖g‖) of ‖g‖: the forcing term of quadratic convergence.
        goal: Any = jnp.minimum(0.1, size)
        found, _ = cg(product, down, start, tol=goal, atol=0.0, maxiter=self.products)
        descends = tree.dot(found, slope) < 0
        return jax.tree.map(lambda a, b: jnp.where(descends, a, b), found, down)

    def _length(self, loss: Any, w: Params, *, slope: PyTree, direction: PyTree) -> Scalar:
        """The first of 1, 1/2, … that lowers L enough; 0 if none does. It moves with λ by jumps alone."""
        loss_at, (w, slope, direction) = _held(loss, (w, slope, direction))
        begin, promised = loss_at(w), tree.dot(slope, direction)
        room = _ROUNDING * jnp.finfo(begin.dtype).eps * jnp.abs(begin)

        def too_long(at: tuple[Scalar, Array]) -> Array:
            length, count = at
            value = loss_at(tree.add(w, tree.scale(length, direction)))
            return (count < self.halvings) & ~(value <= begin + _ENOUGH * length * promised + room)

        def halved(at: tuple[Scalar, Array]) -> tuple[Scalar, Array]:
            return at[0] / 2, at[1] + 1

        start = (jnp.ones((), begin.dtype), jnp.zeros((), jnp.int32))
        length, count = jax.lax.while_loop(too_long, halved, start)
        return jnp.where(count < self.halvings, length, 0)


def _held(loss: Any, point: PyTree) -> tuple[Any, PyTree]:
    """The loss as a function of w alone, and a point, neither of which any derivative flows through."""
    closed, consts = jax.closure_convert(loss, point[0])
    point, consts = jax.lax.stop_gradient((point, consts))
    return lambda w: closed(w, *consts), point
