"""Which equation of a program makes the first NaN or infinity.

The program is run equation by equation. From an output that is not finite the walk goes back: to the
equation that made it, from there to an operand that is not finite either, and so on, into calls and
loops, until all operands of an equation are finite. That equation is the origin. √ has an infinite
derivative at 0, which shows as a division by the root: the root is then named, not the division.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rfho._programs.walk import (
    Equation,
    Program,
    Scan,
    called,
    children,
    evaluate,
    is_branch,
    is_literal,
    line_of,
    read,
    scan_of,
    trace,
    values_of,
)

_SINGULAR = ("sqrt", "rsqrt", "cbrt", "log", "log1p", "pow", "acos", "asin", "atan2")


class Origin(NamedTuple):
    """The first equation with a non-finite result.

    Attributes:
        primitive: its name, or that of the singular function whose derivative it is.
        derivative: whether it is a derivative.
        operands: the ranges of its operands, as ``0`` or ``-1 to 3``; of a derivative, the range of
            the function or of its argument.
        line: file, line and function of the user's code, or "".
    """

    primitive: str
    derivative: bool
    operands: str
    line: str

    def __str__(self) -> str:
        name = (
            f"the derivative of {self.primitive} at" if self.derivative else f"{self.primitive} of"
        )
        return f"{name} {self.operands}" + (f" in {self.line}" if self.line else "")


def origin_of_non_finite(function: Callable[..., Any], *arguments: Any) -> Origin | None:
    """The origin of the first non-finite output of ``function``; None if all are finite."""
    program, _ = trace(function, *arguments)
    found = _origin_in(program, jax.tree.leaves(arguments))
    return found if isinstance(found, Origin) else None


def _origin_in(program: Program, arguments: Sequence[Any]) -> Origin | None:
    """The origin of the first bad output; None if all are finite, or were so from the start."""
    values = _evaluated(program, arguments)
    maker = {var: eqn for eqn in program.jaxpr.eqns for var in eqn.outvars}
    bad = next((var for var in program.jaxpr.outvars if not _all_finite(values(var))), None)
    while bad is not None:
        equation = None if is_literal(bad) else maker.get(bad)
        if equation is None:
            return None
        operands = [var for var in equation.invars if not _all_finite(values(var))]
        if not operands:
            return _origin(program, equation, values)
        known = [var for var in operands if not is_literal(var) and var in maker]
        if not known:
            return _named(equation, equation.primitive.name, values)
        bad = known[0]
    return None


def _origin(program: Program, equation: Equation, values: Callable[[Any], Any]) -> Origin:
    inner = _inner(equation, [values(var) for var in equation.invars])
    if inner is not None:
        return inner
    name = equation.primitive.name
    beside = _singular_beside(program, equation) if name in ("div", "mul", "integer_pow") else None
    if beside is None:
        return _named(equation, name, values)
    function, operand = beside
    return Origin(function, True, _range(values(operand)), line_of(equation))


def _named(equation: Equation, name: str, values: Callable[[Any], Any]) -> Origin:
    shown = [_range(values(var)) for var in equation.invars]
    operands = " and ".join(text for text in shown if text) or "nothing"
    return Origin(name, False, operands, line_of(equation))


def _singular_beside(program: Program, equation: Equation) -> tuple[str, Any] | None:
    """The singular function that made an operand, or is applied to it, and that operand."""
    operands = [var for var in equation.invars if not is_literal(var)]
    for other in program.jaxpr.eqns:
        near = [var for var in operands if any(var is v for v in (*other.outvars, *other.invars))]
        inner = [eqn for child in children(other) for eqn in child.jaxpr.eqns]
        singular = [
            eqn.primitive.name for eqn in (other, *inner) if eqn.primitive.name in _SINGULAR
        ]
        if near and singular:
            return singular[0], near[0]
    return None


def _inner(equation: Equation, given: list[Any]) -> Origin | None:
    """The origin inside a call, a branch or a loop."""
    if is_branch(equation):
        branches = children(equation)
        return _origin_in(branches[int(np.clip(given[0], 0, len(branches) - 1))], given[1:])
    scan, call = scan_of(equation), called(equation)
    if scan is not None:
        return _inside_scan(scan, given)
    return None if call is None else _origin_in(call, given)


def _inside_scan(scan: Scan, given: list[Any]) -> Origin | None:
    fixed, carry = given[: scan.constants], given[scan.constants :][: scan.carried]
    rows = given[scan.constants + scan.carried :]
    for i in scan.order:
        arguments = [*fixed, *carry, *(row[i] for row in rows)]
        results = evaluate(scan.body, arguments)
        if not all(map(_all_finite, results)):
            return _origin_in(scan.body, arguments)
        carry = results[: scan.carried]
    return None


def _evaluated(program: Program, arguments: Sequence[Any]) -> Callable[[Any], Any]:
    """All values of a program, by variable; compiled as one, which is faster than one by one."""
    variables = [var for eqn in program.jaxpr.eqns for var in eqn.outvars]
    variables += [*program.jaxpr.constvars, *program.jaxpr.invars]

    def run(arguments: Sequence[Any]) -> list[Any]:
        values = values_of(program, arguments)
        return [values[var] for var in variables]

    known = dict(zip(variables, jax.jit(run)(arguments), strict=True))
    return lambda atom: read(known, atom)


def _all_finite(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return True
    array = np.asarray(value)
    if not jax.numpy.issubdtype(array.dtype, jax.numpy.inexact):
        return True
    return bool(np.all(np.isfinite(array)))


def _range(value: Any) -> str:
    if not hasattr(value, "dtype") or not jax.numpy.issubdtype(value.dtype, jax.numpy.inexact):
        return ""
    array = np.asarray(value)
    if array.size == 0:
        return ""
    low, high = float(array.min()), float(array.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
