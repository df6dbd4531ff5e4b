"""Gradients inside hand-written steps, with the Hessian-vector product in its cheapest form.

Pulling a cotangent v back through g = ∇_w L(w, λ, b) by reverse mode differentiates a reverse sweep in
reverse. Because second derivatives commute, the same comes from one forward sweep over a gradient:

    (∂g/∂(w, λ))ᵀ v = d/dε ∇_(w,λ) L(w + ε v, λ, b)  at ε = 0

A function with this rule can no longer be differentiated in forward mode. So it is in force only while
an engine pulls a step back, and everywhere else `grad` is `jax.grad`.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import equinox as eqx
import jax

from rfho.typing import PyTree

_pulling_back: ContextVar[bool] = ContextVar("pulling_back", default=False)


def grad(loss: Callable[..., Any]) -> Callable[..., PyTree]:
    """The gradient of ``loss`` by its first argument, for use inside the step of a `Dynamics`.

    Args:
        loss: ``(params, *others) -> scalar``. It may close over hyperparameters and batch.

    Returns:
        ``(params, *others) -> gradient``, equal to ``jax.grad(loss)`` and differentiable in forward and
        in reverse mode. Do not put it under a `jax.jit` of your own: what was traced for one mode would
        be used in the other, which is an error in forward mode.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> def step(w, hyper, batch):
        ...     return w - hyper["lr"] * rfho.grad(lambda w: jnp.sum((w - batch) ** 2))(w)
        >>> dynamics = rfho.Dynamics(init=lambda hyper: jnp.zeros(2), step=step)

    References:
        Kemaev et al., "Scalable meta-learning via mixed-mode differentiation", arXiv 2505.00793.
    """

    def gradient(params: PyTree, *others: PyTree) -> PyTree:
        if not _pulling_back.get():
            return jax.grad(loss)(params, *others)
        # What the loss closes over becomes an argument, so that it gets its cotangent.
        pure, consts = jax.closure_convert(loss, params, *others)
        return _mixed(pure, params, (*others, *consts))

    return gradient


@contextmanager
def pulling_back() -> Generator[None]:
    """While an engine traces a step for its way back."""
    token = _pulling_back.set(True)
    try:
        yield
    finally:
        _pulling_back.reset(token)


def _mixed(loss: Callable[..., Any], params: PyTree, others: tuple[PyTree, ...]) -> PyTree:
    inside, rest = eqx.partition(others, eqx.is_inexact_array)

    def gradients(params: PyTree, inside: PyTree) -> tuple[PyTree, PyTree]:
        whole = lambda w, o: loss(w, *eqx.combine(o, rest))  # noqa: E731
        return jax.grad(whole, argnums=(0, 1))(params, inside)

    @jax.custom_vjp
    def gradient(params: PyTree, inside: PyTree) -> PyTree:
        return gradients(params, inside)[0]

    def forward(params: PyTree, inside: PyTree) -> tuple[PyTree, tuple[PyTree, PyTree]]:
        return gradient(params, inside), (params, inside)

    def backward(kept: tuple[PyTree, PyTree], cotangent: PyTree) -> tuple[PyTree, PyTree]:
        params, inside = kept
        return jax.jvp(lambda w: gradients(w, inside), (params,), (cotangent,))[1]

    gradient.defvjp(forward, backward)
    return gradient(params, inside)
