"""Gradients inside hand-written steps, with the Hessian-vector product in its cheapest form.

A function with the rule of `mixed_mode` can no longer be differentiated in forward mode. So the
rule is in force only while an engine pulls a step back, and everywhere else `grad` is `jax.grad`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.dynamics.mixed_mode import pulled_back
from rfho.typing import PyTree, Scalar

pulling_back = jax.make_user_context(default_value=False)
"""True while an engine traces a step for its way back: ``with pulling_back(True)``. JAX's caches of traced
programs know of it, so that what was traced for one mode is never used in the other."""


def grad(loss: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., PyTree]:
    """The gradient of ``loss`` by its first argument, for use inside the step of a `Dynamics`.

    Args:
        loss: ``(params, *others) -> scalar``. It may close over anything that the step has made:
            hyperparameters, batches, masks, keys, counters.
        has_aux: whether ``loss`` returns a pair ``(scalar, aux)``.

    Returns:
        ``(params, *others) -> gradient``, or ``-> (gradient, aux)`` with ``has_aux``; equal to
        ``jax.grad(loss, has_aux=has_aux)`` and differentiable in forward and in reverse mode.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> def step(w, hyper, batch):
        ...     return w - hyper["lr"] * rfho.grad(lambda w: jnp.sum((w - batch) ** 2))(w)
        >>> dynamics = rfho.Dynamics(init=lambda hyper: jnp.zeros(2), step=step)

    References:
        Kemaev et al., "Scalable meta-learning via mixed-mode differentiation", arXiv 2505.00793.
    """

    def gradient(params: PyTree, *others: PyTree) -> PyTree:
        if not pulling_back.value:
            return jax.grad(loss, has_aux=has_aux)(params, *others)
        params = jax.tree.map(jnp.asarray, params)
        # What the loss closes over becomes an argument: derivatives pass through no closure.
        pure = eqx.filter_closure_convert(loss, params, *others)
        return _mixed((pure, params, others), has_aux)

    return gradient


@eqx.filter_custom_vjp
def _mixed(arguments: tuple[Callable[..., Any], PyTree, PyTree], has_aux: bool) -> PyTree:
    loss, params, others = arguments
    return jax.grad(loss, has_aux=has_aux)(params, *others)


@_mixed.def_fwd
def _(perturbed: PyTree, arguments: Any, has_aux: bool) -> tuple[PyTree, None]:
    return _mixed(arguments, has_aux), None


@_mixed.def_bwd
def _(kept: None, cotangent: PyTree, perturbed: PyTree, arguments: Any, has_aux: bool) -> PyTree:
    loss, params, others = arguments
    loss_perturbed, params_perturbed, others_perturbed = perturbed
    v, c = cotangent if has_aux else (cotangent, None)
    # Leaves that nothing uses have None for a cotangent; leaves without a derivative get none.
    v = jax.tree.map(lambda w, v: jnp.zeros_like(w) if v is None else v, params, v)
    used = jax.tree.map(lambda c: c is not None, c, is_leaf=lambda c: c is None)
    inside, rest = eqx.partition((loss, others), (loss_perturbed, others_perturbed))

    def outputs(params: PyTree, inside: PyTree) -> tuple[Scalar, PyTree]:
        loss, others = eqx.combine(inside, rest)
        value, aux = loss(params, *others) if has_aux else (loss(params, *others), None)
        return value, eqx.filter(aux, used)

    by_params, (by_loss, by_others) = pulled_back(outputs, params, inside, cotangents=(v, c))
    return by_loss, eqx.filter(by_params, params_perturbed), by_others
