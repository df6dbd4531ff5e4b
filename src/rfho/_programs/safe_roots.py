r"""Optimisers whose updates can be differentiated where Optax's cannot.

Optimisers that normalise by a second moment take √v of a v that is exactly zero wherever a gradient
is: for a dead unit, a word that is not in the batch, a leaf at rest. The update is finite there, and
its derivative exists, but the chain rule meets :math:`\sqrt{}'(0) = \infty` times zero and says NaN.
Along any path on which v stays zero √v does too, so that zero is the right derivative; for v = g²
it is the mean of both sides of \|g\|. Divisions by zero, whose result some optimisers throw away,
make the same NaN.

`safe_roots` gives the operations √x, 1/√x and a/b the derivative zero at those points. It works on
any optimiser: it looks the operations up in what JAX traced of it, and leaves values as they are.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import ArrayLike

from rfho._programs.walk import Equation, bind_inside, evaluate
from rfho.typing import PyTree


def safe_roots(
    optim: optax.GradientTransformation, *, of_negative: float = math.nan
) -> optax.GradientTransformationExtraArgs:
    """The same optimiser, with derivative zero of √x and 1/√x at x = 0 and of a/b at b = 0.

    Its updates are those of ``optim``, to rounding: the same operations in the same order. Its
    derivatives too, wherever those are finite. Operations inside loops (`jax.lax.scan`,
    `jax.lax.while_loop`) and inside functions with derivatives of their own are left as they are.

    Args:
        optim: any Optax optimiser.
        of_negative: the value of √x for x < 0. Optax's RAdam takes such a root while its mask is
            off, where only a number does not spoil the derivative: 0 is for optimisers like that.

    Returns:
        An optimiser with the same state.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> def moved(w, optim):
        ...     updates, _ = optim.update(0 * w, optim.init(w), w)
        ...     return w + updates
        >>> float(jax.grad(moved)(1.0, optax.adam(0.1)))
        nan
        >>> float(jax.grad(moved)(1.0, rfho.optim.safe_roots(optax.adam(0.1))))
        1.0
    """
    optim = optax.with_extra_args_support(optim)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        def inside(updates: PyTree, state: PyTree, params: PyTree, extra: PyTree) -> PyTree:
            return optim.update(updates, state, params, **extra)

        return _with_safe_operations(inside, of_negative)(updates, state, params, extra_args)

    return optax.GradientTransformationExtraArgs(optim.init, update)


def safe_sqrt(x: ArrayLike, of_negative: float = math.nan) -> Array:
    """√x with derivative 0 at x = 0, and ``of_negative`` below.

    Example:
        >>> import jax, rfho
        >>> float(jax.grad(rfho.optim.safe_sqrt)(0.0)), float(jax.grad(rfho.optim.safe_sqrt)(4.0))
        (0.0, 0.25)
    """
    # The root is taken of 1 where its own would spoil the derivative; NaN goes through.
    x = jnp.asarray(x)
    elsewhere = jnp.where(x == 0, x, jnp.asarray(of_negative, jnp.result_type(x)))
    bad = x <= 0
    return jnp.where(bad, jax.lax.stop_gradient(elsewhere), jnp.sqrt(jnp.where(bad, 1, x)))


def _safe_rsqrt(x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    bad = x <= 0
    value = jax.lax.rsqrt(jax.lax.stop_gradient(x))
    return jnp.where(bad, value, jax.lax.rsqrt(jnp.where(bad, 1, x)))


def _safe_divide(a: ArrayLike, b: ArrayLike) -> Array:
    a, b = jnp.asarray(a), jnp.asarray(b)
    bad = b == 0
    value = jax.lax.div(*jax.lax.stop_gradient((a, b)))
    return jnp.where(bad, value, jax.lax.div(a, jnp.where(bad, 1, b)))


def _with_safe_operations(
    function: Callable[..., PyTree], of_negative: float
) -> Callable[..., PyTree]:
    """``function``, evaluated operation by operation, the dangerous ones replaced."""

    def rule(equation: Equation, operands: list[Any]) -> Sequence[Any]:
        safe = _safe(equation, operands, of_negative)
        return bind_inside(equation, operands, rule) if safe is None else [safe]

    def evaluated(*arguments: PyTree) -> PyTree:
        traced, shapes, static = eqx.filter_make_jaxpr(function)(*arguments)
        arrays = jax.tree.leaves(eqx.filter(arguments, eqx.is_array))
        outputs = evaluate(traced, arrays, rule)
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), outputs), static)

    return evaluated


def _safe(equation: Equation, operands: list[Any], of_negative: float) -> Array | None:
    match equation.primitive.name:
        case "sqrt":
            return safe_sqrt(operands[0], of_negative)
        case "rsqrt":
            return _safe_rsqrt(*operands)
        case "div" if jnp.issubdtype(jnp.result_type(*operands), jnp.inexact):
            return _safe_divide(*operands)
        case _:
            return None
