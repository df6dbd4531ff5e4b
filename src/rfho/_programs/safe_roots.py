r"""Optimisers whose updates can be differentiated where Optax's cannot.

Optimisers that normalise by a second moment take √v of a v that is exactly zero wherever a gradient
is: for a dead unit, a word that is not in the batch, a leaf at rest. The update is finite there, and
its derivative exists, but the chain rule meets :math:`\sqrt{}'(0) = \infty` times zero and says NaN.
Along any path on which v stays zero √v does too, so that zero is the right derivative; for v = g²
it is the mean of both sides of \|g\|. Quotients 0/0, which some transformations compute and throw away,
make the same NaN: by their own derivative, and as a factor of whatever is computed from them before
they are thrown away.

So two rules, for every operation and whatever it is part of:

    where √x, 1/√x, x^y, log x or a/b is singular, its derivative is zero;
    a factor that may come from there is zero in derivatives wherever it is no finite number.

All values stay as they are. `safe_roots` works on any optimiser: it looks the operations up in what JAX
traced of it, inside of compiled functions, branches, loops and rematerialised parts too.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jaxtyping import ArrayLike

from rfho._programs.walk import (
    Equation,
    Rule,
    aval_of,
    bind,
    bind_inside,
    children,
    evaluate,
    evaluated_by,
    everywhere,
    has_own_derivative,
    is_literal,
    trace,
)
from rfho.typing import PyTree

_never = lambda result, *operands: jnp.zeros((), bool)  # noqa: E731
_at_zero = lambda result, *operands: result == 0  # noqa: E731
_SINGULAR: dict[str, Callable[..., Array]] = {
    "sqrt": _at_zero,
    "cbrt": _at_zero,
    "pow": lambda result, x, y: (result == 0) & (y < 1),
    **dict.fromkeys(("rsqrt", "log", "div", "integer_pow"), _never),
}
"""Elementary functions, and where their derivative is infinite though their result is a finite number."""

_LINEAR = {
    *("add", "sub", "neg", "add_any", "reduce_sum", "cumsum", "convert_element_type", "select_n"),
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p"),
    *("slice", "concatenate", "pad", "rev", "real", "imag", "stop_gradient"),
}
"""Their derivatives do not depend on the values of floating-point operands."""


def safe_roots(optim: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same optimiser, with derivatives that are finite where roots and quotients are singular.

    Its updates are those of ``optim``: the same operations in the same order. Its derivatives too,
    wherever those are finite. A `jax.custom_vjp` within is left as it is. `Descent` does this to every
    optimiser that it is given; it is for steps that you write yourself.

    Args:
        optim: any Optax optimiser, a chain for instance.

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
    if isinstance(optim, _Safe):
        return optim
    optim = optax.with_extra_args_support(optim)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        def inside(updates: PyTree, state: PyTree, params: PyTree, extra: PyTree) -> PyTree:
            return optim.update(updates, state, params, **extra)

        return evaluated_by(_rule, inside)(updates, state, params, extra_args)

    return _Safe(optim.init, update)


class _Safe(optax.GradientTransformationExtraArgs):
    """What `safe_roots` has seen to already."""


def safe_sqrt(x: ArrayLike, of_negative: float = jnp.nan) -> Array:
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


def _rule() -> Rule:
    """Evaluates equations, and remembers which variables may come from a singular operation."""
    exposed: set[Any] = set()

    def rule(equation: Equation, operands: list[Any]) -> Sequence[Any]:
        reached = [not is_literal(atom) and atom in exposed for atom in equation.invars]
        inside = children(equation)
        within = (inner for program in inside for inner in everywhere(program))
        if any(reached) or _is_singular(equation) or any(map(_is_singular, within)):
            exposed.update(equation.outvars)
            exposed.update(variable for program in inside for variable in program.jaxpr.invars)
        if equation.primitive.name == "custom_jvp_call":
            return _guarded(equation, operands, reached)
        if inside and not has_own_derivative(equation):
            return bind_inside(equation, operands, rule)
        if _is_singular(equation) or (any(reached) and _depends_on_values(equation)):
            return _guarded(equation, operands, reached)
        return bind(equation, operands)

    return rule


def _is_singular(equation: Equation) -> bool:
    name = equation.primitive.name
    if name not in _SINGULAR or not _are_real(equation.outvars):
        return False
    if name == "div":
        divisor: Any = equation.invars[1]
        return not is_literal(divisor) or bool(divisor.val == 0)
    return not (name == "integer_pow" and equation.params["y"] > 0)


def _depends_on_values(equation: Equation) -> bool:
    """Whether the derivative does."""
    of_floats = _are_real(equation.outvars) and not has_own_derivative(equation)
    return of_floats and equation.primitive.name not in _LINEAR


def _are_real(atoms: Iterable[Any]) -> bool:
    dtypes = (getattr(aval_of(atom), "dtype", None) for atom in atoms)
    return any(dtype is not None and jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)


def _guarded(equation: Equation, operands: list[Any], reached: list[bool]) -> Sequence[Any]:
    """The results of an equation, with the derivative that the rules of this module give it."""

    @jax.custom_jvp
    def results(*operands: Any) -> list[Any]:
        return list(bind(equation, operands))

    def derivative(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        values = results(*primals)
        mask = _mask(equation, values, primals) if _is_singular(equation) else None
        if mask is None:
            pairs = zip(primals, reached, strict=True)
            harmless = [_finite(x) if known else x for x, known in pairs]
        else:
            harmless = [jnp.where(mask, jnp.ones((), x.dtype), x) for x in primals]
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

        def moved(*parts: Any) -> list[Any]:
            here = dict(zip(moving, parts, strict=True))
            return list(bind(equation, [here.get(i, x) for i, x in enumerate(harmless)]))

        push = lambda *both: jax.jvp(moved, *both)[1]  # noqa: E731
        push = _without_infinities(push) if equation.primitive.name == "custom_jvp_call" else push
        # A number may stand beside an array.
        along = [jnp.broadcast_to(tangents[i], jnp.shape(harmless[i])) for i in moving]
        pushed = push([harmless[i] for i in moving], along)
        return values, pushed if mask is None else [_zero_where(mask, pushed[0])]

    results.defjvp(derivative, symbolic_zeros=True)
    return results(*operands)


def _mask(equation: Equation, results: Sequence[Any], operands: Sequence[Any]) -> Array:
    """Where an elementary function has no derivative that is finite."""
    (result,) = results
    return ~jnp.isfinite(result) | _SINGULAR[equation.primitive.name](result, *operands)


def _zero_where(mask: Array, value: Any) -> Any:
    return jnp.where(mask, jnp.zeros((), value.dtype), value)


def _finite(value: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return value
    return _zero_where(~jnp.isfinite(value), value)


def _without_infinities(function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """``function``, with zero where an operation in it is singular: for derivatives written by users."""

    def rule(equation: Equation, operands: Sequence[Any]) -> Sequence[Any]:
        if not _is_singular(equation):
            return bind_inside(equation, operands, rule)
        if equation.primitive.name != "div":
            return [_finite(*bind(equation, operands))]
        # The numerator may be a tangent, in which all is to be linear.
        numerator, denominator = operands
        mask = denominator == 0
        instead = jnp.where(mask, jnp.ones((), denominator.dtype), denominator)
        return [_zero_where(mask, *bind(equation, [numerator, instead]))]

    def run(*arguments: Any) -> list[Any]:
        program, _ = trace(function, *arguments)
        return evaluate(program, jax.tree.leaves(arguments), rule)

    return run
