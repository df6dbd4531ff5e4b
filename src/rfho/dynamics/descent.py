"""Gradient descent under any Optax optimiser.

One step is a gradient g = ∇_w L(w, λ, b) followed by an update of parameters and slots; see
`inner_gradient` for the way back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import optax

from rfho._programs.safe_roots import safe_roots
from rfho.dynamics.base import AbstractDescent, Keep, Way
from rfho.dynamics.initial import as_init, trained
from rfho.dynamics.inner_gradient import InnerGradient, Slope, way_through_gradient
from rfho.dynamics.variables import like, parted
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar


class DescentState(NamedTuple):
    """Parameters w_t and the optimiser's slots."""

    params: Params
    slots: PyTree


class Descent(AbstractDescent):
    """Gradient descent on ``loss`` under the Optax optimiser that ``optim`` builds from the hyperparameters.

    The optimiser is built inside the trace, so that every float it depends on (rate, momentum, β1,
    β2, ε, weight decay, a schedule's values) has an exact hypergradient.

    Args:
        loss: ``(params, hyper, batch) -> scalar``, the inner loss L.
        optim: ``hyper -> optax.GradientTransformation``. Optax's own `exponential_decay`,
            `warmup_cosine_decay_schedule` and `piecewise_constant_schedule` cannot be traced in
            their parameters: use `rfho.schedules`. Its roots and quotients have finite derivatives
            where a gradient is exactly zero (`rfho.optim.safe_roots`): an ``eps_root`` is not needed.
        init: the initial parameters, `Variables` where the loss carries arrays from step to step, or
            a function ``hyper ->`` either. Of an Equinox model the floating-point arrays are trained;
            loss and objectives are given the model, results hold it as a `SplitModel`.
        has_aux: whether ``loss`` returns ``(scalar, aux)``. Of `Variables` aux are the carried arrays
            of the next step; otherwise it (metrics, say) is left out of training.
        output: ``(params, slots) -> weights``, what objectives see; ``params`` by default. For
            optimisers that are to be evaluated elsewhere than where they take gradients:
            schedule-free, lookahead, averages of weights.

    Raises:
        TypeError: an argument is not of its kind, or the loss does not return what ``has_aux`` says.

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

        Weights that are averaged by the optimiser (arXiv 2405.15682):

        >>> free = rfho.Descent(
        ...     loss=lambda w, hyper, batch: (w - 1) ** 2,
        ...     optim=lambda hyper: optax.contrib.schedule_free_sgd(hyper["lr"]),
        ...     init=jnp.zeros(()),
        ...     output=lambda w, slots: optax.contrib.schedule_free_eval_params(slots, w),
        ... )
    """

    inner: InnerGradient
    optim: Callable[[Hyper], optax.GradientTransformation]
    _init: Any
    _output: Callable[[Params, PyTree], Params] | None

    def __init__(
        self,
        loss: Callable[[Params, Hyper, Batch], Any],
        optim: Callable[[Hyper], optax.GradientTransformation],
        init: Params | Callable[[Hyper], Params],
        *,
        has_aux: bool = False,
        output: Callable[[Params, PyTree], Params] | None = None,
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
        if output is not None and not callable(output):
            raise TypeError(
                f"Descent got output={output!r}, but output must be a function (params, slots)"
            )
        self.inner = InnerGradient(loss, has_aux)
        self.optim = optim
        self._init = as_init(init)
        self._output = output

    def under(
        self,
        optim: Callable[[Hyper], optax.GradientTransformation],
        own: Callable[[PyTree], PyTree] | None = None,
    ) -> "Descent":
        """The same descent under another optimiser.

        Args:
            optim: as for `Descent`.
            own: what ``output`` is given of the new slots; all of them by default.
        """
        output, changed = self._output, eqx.tree_at(lambda descent: descent.optim, self, optim)
        if output is None or own is None:
            return changed
        whole = lambda params, slots: output(params, own(slots))  # noqa: E731
        return eqx.tree_at(lambda descent: descent._output, changed, whole)

    def init(self, hyper: Hyper) -> DescentState:
        """s_0: initial parameters and empty slots."""
        params: Any = trained(self._init(hyper))
        return DescentState(params, self.optim(hyper).init(parted(params).params))

    def step(self, state: DescentState, hyper: Hyper, batch: Batch) -> DescentState:
        """s_t: one gradient, one update."""
        return self._take(state, self.inner.at(state.params, hyper, batch), hyper)

    def output(self, state: DescentState) -> Params:
        """The weights that objectives see: w_t, or what ``output`` makes of it."""
        return state.params if self._output is None else self._output(state.params, state.slots)

    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L(w, λ, b)."""
        return self.inner.value(params, hyper, batch)

    def gradient(self, params: Params, hyper: Hyper, batch: Batch) -> PyTree:
        """g = ∇_w L(w, λ, b)."""
        return self.inner.at(params, hyper, batch).gradient

    def update(self, state: DescentState, gradient: PyTree, hyper: Hyper) -> DescentState:
        """Slots and parameters after the optimiser has seen ``gradient``."""
        trained, carried = parted(state.params)
        updates, slots = safe_roots(self.optim(hyper)).update(gradient, state.slots, trained)
        trained = optax.apply_updates(trained, updates)
        return DescentState(like(state.params, trained, carried), slots)

    def way(self, keep: Keep) -> Way:
        """Reverse mode through the update, mixed mode through the gradient."""
        return way_through_gradient(self.inner, self._take, keep)

    def _take(self, state: DescentState, slope: Slope, hyper: Hyper) -> DescentState:
        after = self.update(state, slope.gradient, hyper)
        params = like(after.params, parted(after.params).params, slope.carried)
        return after._replace(params=params)
