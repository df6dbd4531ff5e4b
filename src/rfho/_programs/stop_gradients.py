"""What a function's derivative would be if `jax.lax.stop_gradient` did not cut it.

The values stay as they are. Functions with a derivative that their user wrote keep it.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from rfho._programs.walk import Equation, bind_inside, evaluate, line_of, lines_with, trace
from rfho.typing import PyTree

_STOP = "stop_gradient"


def stopping_lines(function: Callable[..., PyTree], *arguments: PyTree) -> list[str]:
    """The lines of the user's code that stop a gradient in ``function``."""
    return lines_with((_STOP,), function, *arguments)


def unstopped(function: Callable[..., PyTree], lines: Collection[str]) -> Callable[..., PyTree]:
    """``function``, whose derivative goes through what ``lines`` stop."""

    def through(equation: Equation, operands: list[Any]) -> Sequence[Any]:
        if equation.primitive.name == _STOP and line_of(equation) in lines:
            return operands
        return bind_inside(equation, operands, through)

    def unstopped(*arguments: PyTree) -> PyTree:
        program, shape = trace(function, *arguments)
        results = evaluate(program, jax.tree.leaves(arguments), through)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return unstopped
