"""Which equation of a program makes the first NaN or infinity.

The program is run equation by equation. From an output that is not finite the walk goes back: to the
equation that made it, from there to an operand that is not finite either, and so on, into calls and
loops, until all operands of an equation are finite. That equation is the origin. √ has an infinite
derivative at 0, which shows as a division by the root: the root is then named, not the division.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.extend import core
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

_SINGULAR = ("sqrt", "rsqrt", "cbrt", "log", "log1p", "pow", "acos", "asin", "atan2")
_NOT_THE_USERS = (
    *(str(package.__file__).rpartition("__init__")[0] for package in (jax, eqx)),
    __file__.rpartition("_programs")[0],
)


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
    program = jax.make_jaxpr(lambda *args: function(*args))(*arguments)
    found = _walk(program, jax.tree.leaves(arguments))
    return found if isinstance(found, Origin) else None


def line_of(equation: JaxprEqn) -> str:
    """Where the user's code asked for an equation: the innermost frame outside JAX and this library."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_NOT_THE_USERS):
            name = frame.function_name.rpartition("<locals>.")[-1]
            file = re.split(r"[/\\]", frame.file_name)[-1]
            return f"{file}:{frame.line_num} ({name})"
    return ""


def inner_programs(equation: JaxprEqn) -> list[Jaxpr]:
    """The programs that an equation calls."""
    return list(core.jaxprs_in_params(equation.params))


def _walk(program: ClosedJaxpr, arguments: Sequence[Any]) -> Origin | None:
    """The origin of the first bad output; None if all are finite, or were so from the start."""
    values = _evaluated(program, arguments)
    maker = {var: eqn for eqn in program.jaxpr.eqns for var in eqn.outvars}
    bad = next((var for var in program.jaxpr.outvars if not _all_finite(values(var))), None)
    while bad is not None:
        equation = maker.get(bad)
        if equation is None:
            return None
        operands = [var for var in equation.invars if not _all_finite(values(var))]
        if not operands:
            return _origin(program.jaxpr, equation, values)
        known = [var for var in operands if not isinstance(var, Literal) and var in maker]
        if not known:
            return _named(equation, equation.primitive.name, values)
        bad = known[0]
    return None


def _origin(jaxpr: Jaxpr, equation: JaxprEqn, values: Callable[[Any], Any]) -> Origin:
    given = [values(var) for var in equation.invars]
    inner = _inner(equation, given)
    if inner is not None:
        return inner
    name = equation.primitive.name
    beside = _singular_beside(jaxpr, equation) if name in ("div", "mul", "integer_pow") else None
    if beside is None:
        return _named(equation, name, values)
    function, operand = beside
    return Origin(function, True, _range(values(operand)), line_of(equation))


def _named(equation: JaxprEqn, name: str, values: Callable[[Any], Any]) -> Origin:
    shown = [_range(values(var)) for var in equation.invars]
    operands = " and ".join(text for text in shown if text) or "nothing"
    return Origin(name, False, operands, line_of(equation))


def _singular_beside(jaxpr: Jaxpr, equation: JaxprEqn) -> tuple[str, Any] | None:
    """The singular function that made an operand, or is applied to it, and that operand."""
    operands = [var for var in equation.invars if not isinstance(var, Literal)]
    for other in jaxpr.eqns:
        near = [var for var in operands if any(var is v for v in (*other.outvars, *other.invars))]
        inner = [eqn for program in inner_programs(other) for eqn in program.eqns]
        singular = [
            eqn.primitive.name for eqn in (other, *inner) if eqn.primitive.name in _SINGULAR
        ]
        if near and singular:
            return singular[0], near[0]
    return None


def _inner(equation: JaxprEqn, given: list[Any]) -> Origin | None:
    """The origin inside a call, a branch or a loop."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        index = int(np.clip(given[0], 0, len(params["branches"]) - 1))
        return _walk(params["branches"][index], given[1:])
    if name == "scan":
        return _inside_scan(params, given)
    programs = _called(params)
    return _walk(programs, given) if programs is not None else None


def _called(params: dict[str, Any]) -> ClosedJaxpr | None:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        program = params.get(key)
        if isinstance(program, ClosedJaxpr):
            return program
        if isinstance(program, Jaxpr):
            return ClosedJaxpr(program, [])
    return None


def _inside_scan(params: dict[str, Any], given: list[Any]) -> Origin | None:
    program, constants, carried = params["jaxpr"], params["num_consts"], params["num_carry"]
    fixed, carry = given[:constants], given[constants : constants + carried]
    rows = given[constants + carried :]
    order = range(params["length"])
    for i in reversed(order) if params["reverse"] else order:
        arguments = [*fixed, *carry, *(row[i] for row in rows)]
        results = core.jaxpr_as_fun(program)(*arguments)
        if not all(map(_all_finite, results)):
            return _walk(program, arguments)
        carry = results[:carried]
    return None


def _evaluated(program: ClosedJaxpr, arguments: Sequence[Any]) -> Callable[[Any], Any]:
    """All values of a program, by variable; compiled as one, which is faster than one by one."""
    jaxpr = program.jaxpr
    made = [var for equation in jaxpr.eqns for var in equation.outvars]
    known = dict(zip(jaxpr.constvars, program.consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def run(given: list[Any]) -> list[Any]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))
        for equation in jaxpr.eqns:
            operands = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
            params = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **params)
            several = equation.primitive.multiple_results
            values.update(zip(equation.outvars, results if several else [results], strict=True))
        return [values[var] for var in made]

    known.update(zip(made, jax.jit(run)(list(known.values())), strict=True))
    return lambda var: var.val if isinstance(var, Literal) else known[var]


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
