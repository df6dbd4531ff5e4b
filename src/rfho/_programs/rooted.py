"""A number under every root of a program: what optimisers that divide by a root lack to change smoothly."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from rfho._programs.walk import Equation, bind, bind_inside, evaluated_by, everywhere, trace
from rfho.typing import PyTree

_ROOTS = ("sqrt", "rsqrt")


def with_rooted(function: Callable[..., PyTree], epsilon: float) -> Callable[..., PyTree]:
    """``function`` with √(x + ε) for √x wherever it takes a root, but for what has a derivative of its own."""

    def rule(equation: Equation, operands: list[Any]) -> Sequence[Any]:
        if equation.primitive.name not in _ROOTS:
            return bind_inside(equation, operands, rule)
        (x,) = operands
        return bind(equation, [x + jnp.asarray(epsilon, x.dtype)])

    return evaluated_by(lambda: rule, function)


def takes_roots(function: Callable[..., PyTree], *arguments: PyTree) -> bool:
    """Whether there is a root in the program of ``function``."""
    program, _ = trace(function, *arguments)
    return any(equation.primitive.name in _ROOTS for equation in everywhere(program))
