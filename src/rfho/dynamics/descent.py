"""Gradient descent under any Optax optimiser, with the Hessian-vector product in its cheapest form.

One step is a gradient g = ∇_w L(w, λ, b) followed by an update of parameters and slots. The way
back pulls the adjoint through the update by reverse mode, which gives the cotangent v of g, and
through the gradient by *forward* mode: since second derivatives commute,

    v ↦ (∂g/∂(w, λ))ᵀ v = d/dε ∇_(w,λ) L(w + ε v, λ, b) |_ε=0,

one jvp of a gradient, which needs neither the memory nor the time of reverse-over-reverse
(arXiv 2505.00793 calls it mixed mode).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax

from rfho import _tree as tree
from rfho.dynamics.base import AbstractDynamics, Keep, Way, as_init, save_products
from rfho.typing import Batch, Hyper, Loss, Params, PyTree, Scalar


class DescentState(NamedTuple):
    """Parameters w_t and the optimiser's slots."""

    params: Params
    slots: PyTree


class Descent(AbstractDynamics):
    """Gradient descent on ``loss`` under the Optax optimiser that ``optim`` builds from the hyperparameters.

    The optimiser is built inside the trace, so that every float it depends on (rate, momentum, β1,
    β2, ε, weight decay, a schedule's values) has an exact hypergradient.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the inner loss L.
        optim: ``hyper -> optax.GradientTransformation``. Optax's own `exponential_decay`,
            `warmup_cosine_decay_schedule` and `piecewise_constant_schedule` cannot be traced in
            their
            parameters: use `rfho.schedules`.
        init: the initial parameters (an Equinox model's arrays among them), or a function
            ``hyper -> params`` when they are learned.
            Optimisers that normalise by a second moment have an infinite derivative where a
            gradient is exactly zero (√ at 0): give Adam an ``eps_root`` > 0, or use
            `rfho.optim.adam`.

    Cost:
        A step costs one gradient. The way back costs one Hessian-vector product per step, and one
        more gradient under ``Keep.STATES``.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     loss=lambda w, hyper, batch: 0.5 * hyper["l2"] * w**2 - w,
        ...     optim=lambda hyper: optax.sgd(hyper["lr"], momentum=0.9),
        ...     init=jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w**2, train=None, valid=None, horizon=3
        ... )
        >>> sorted(rfho.hyper_gradient(problem, {"lr": 0.1, "l2": 1.0}).hypergradient)
        ['l2', 'lr']
    """

    loss: Loss
    optim: Callable[[Hyper], optax.GradientTransformation]
    _init: Any

    def __init__(
        self,
        loss: Loss,
        optim: Callable[[Hyper], optax.GradientTransformation],
        init: Params | Callable[[Hyper], Params],
    ) -> None:
        if not callable(loss):
            raise TypeError(
                f"Descent got loss={loss!r}, but loss must be a function (params, hyper, batch)"
            )
        if isinstance(optim, optax.GradientTransformation) or not callable(optim):
            raise TypeError(
                "Descent's optim must be a function of hyper, so that its settings can be learned: "
                "write optim=lambda hyper: optax.sgd(hyper['lr'])"
            )
        self.loss = loss
        self.optim = optim
        self._init = as_init(init)

    def init(self, hyper: Hyper) -> DescentState:
        """s_0: initial parameters and empty slots."""
        params: Any = self._init(hyper)
        return DescentState(params, self.optim(hyper).init(params))

    def step(self, state: DescentState, hyper: Hyper, batch: Batch) -> DescentState:
        """s_t: one gradient, one update."""
        return self.update(state, self.gradient(state.params, hyper, batch), hyper)

    def output(self, state: DescentState) -> Params:
        """w_t."""
        return state.params

    def gradient(self, params: Params, hyper: Hyper, batch: Batch) -> PyTree:
        """G = ∇_w L(w, λ, b)."""
        return jax.grad(self.loss)(params, hyper, batch)

    def update(self, state: DescentState, gradient: PyTree, hyper: Hyper) -> DescentState:
        """Slots and parameters after the optimiser has seen ``gradient``."""
        updates, slots = self.optim(hyper).update(gradient, state.slots, state.params)
        return DescentState(optax.apply_updates(state.params, updates), slots)

    def way(self, keep: Keep) -> Way:
        """Reverse mode through the update, forward-over-reverse through the gradient."""
        return Way(
            lambda state, hyper, batch: self._remember(state, hyper, batch, keep=keep),
            lambda adjoint, state, memory, hyper, batch: self._pull_back(
                adjoint, state, memory, hyper=hyper, batch=batch, keep=keep
            ),
            again=self.update if keep is Keep.GRADIENTS else None,
        )

    def _remember(
        self, state: DescentState, hyper: Hyper, batch: Batch, *, keep: Keep
    ) -> tuple[DescentState, PyTree]:
        if keep is Keep.RESIDUALS:
            (gradient, _), push = self._linearised(state.params, hyper, batch, remat=save_products)
            memory = gradient, tree.leaves_beside(push, (state, hyper, batch))
        else:
            gradient = self.gradient(state.params, hyper, batch)
            memory = gradient if keep is Keep.GRADIENTS else ()
        return self.update(state, gradient, hyper), memory

    def _pull_back(
        self,
        adjoint: PyTree,
        state: DescentState,
        memory: PyTree,
        *,
        hyper: Hyper,
        batch: Batch,
        keep: Keep,
    ) -> tuple[PyTree, PyTree]:
        # What was kept takes the place of what is traced here, which then is dead code.
        if keep is Keep.RESIDUALS:
            _, push = self._linearised(state.params, hyper, batch, remat=save_products)
            gradient, residuals = memory
            push = tree.with_leaves(push, residuals, (state, hyper, batch))
        else:
            (gradient, _), push = self._linearised(state.params, hyper, batch)
            gradient = memory if keep is Keep.GRADIENTS else gradient
        _, vjp = eqx.filter_vjp(self.update, state, gradient, hyper)
        adjoint, cotangent, hyper_cotangent = vjp(adjoint)
        through_params, through_hyper = push(cotangent)
        return (
            adjoint._replace(params=tree.add(adjoint.params, through_params)),
            tree.add(hyper_cotangent, through_hyper),
        )

    def _linearised(
        self,
        params: Params,
        hyper: Hyper,
        batch: Batch,
        *,
        remat: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    ) -> tuple[tuple[PyTree, PyTree], Callable[[PyTree], tuple[PyTree, PyTree]]]:
        """∇_(w,λ) L at w, and its derivative along a direction of w."""
        inside, rest = tree.split(hyper)

        def loss(params: Params, inside: PyTree) -> Scalar:
            return self.loss(params, eqx.combine(inside, rest), batch)

        gradients = remat(lambda w: jax.grad(loss, argnums=(0, 1))(w, inside))
        return jax.linearize(gradients, params)
