"""How a traced program is walked: the one idea of what its equations call.

An equation of a program is one of four things:

    a call      one inner program, with the equation's own operands and results: jit, remat, custom_jvp, …
    a branch    one of several inner programs, chosen by the first operand: cond
    a loop      inner programs that run many times: scan, while
    a leaf      all others, which may still have programs inside (a reduction, a scatter)

A call is known by its shape, not by its name, so that names may come and go. Besides `liveness` and
`tracing` this is the only file that knows JAX's own classes of programs.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from rfho.typing import PyTree

Program = ClosedJaxpr
"""A program and the values of its constants."""

Equation = JaxprEqn

Rule = Callable[[Equation, list[Any]], Sequence[Any]]
"""The results of an equation on operands."""

_MERE_CALLS = ("jit", "pjit", "closed_call", "core_call", "eval_jaxpr")
_OWN_DERIVATIVE = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")
_NOT_THE_USERS = (
    *(str(package.__file__).rpartition("__init__")[0] for package in (jax, eqx)),
    __file__.rpartition("_programs")[0],
)


def trace(function: Callable[..., PyTree], *arguments: PyTree) -> tuple[Program, PyTree]:
    """The program of ``function``, and what it returns as a tree of abstract arrays."""
    # A fresh lambda: JAX remembers the traces of functions that it knows.
    return jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*arguments)


def closed(jaxpr: Any, consts: Sequence[Any] = ()) -> Program:
    """A program of an open one; one that is closed as it is."""
    return jaxpr if not consts and hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, consts)


def children(equation: Equation) -> list[Program]:
    """All programs inside of an equation, in order."""
    params = list(equation.params.values())
    leaves = jax.tree.leaves(params, is_leaf=lambda param: isinstance(param, ClosedJaxpr | Jaxpr))
    return [closed(leaf) for leaf in leaves if isinstance(leaf, ClosedJaxpr | Jaxpr)]


def called(equation: Equation) -> Program | None:
    """The program that a call runs on its operands; None if the equation is no call."""
    inner = children(equation)
    if len(inner) != 1 or is_loop(equation) or is_branch(equation):
        return None
    program = inner[0].jaxpr
    alike = _same(program.invars, equation.invars) and _same(program.outvars, equation.outvars)
    return inner[0] if alike else None


def is_branch(equation: Equation) -> bool:
    """Whether the first operand chooses which of the `children` runs."""
    return equation.primitive.name == "cond"


def is_loop(equation: Equation) -> bool:
    """Whether the `children` run many times."""
    return equation.primitive.name in ("scan", "while")


def mere_call(equation: Equation) -> Program | None:
    """The program of a call that means no more than the equations inside; None of anything else."""
    return called(equation) if equation.primitive.name in _MERE_CALLS else None


def has_own_derivative(equation: Equation) -> bool:
    """Whether a call has a derivative that its user wrote."""
    return equation.primitive.name in _OWN_DERIVATIVE


class Scan(NamedTuple):
    """A loop of known length.

    Attributes:
        body: takes constants, carry and a row of each input; gives carry and a row of each output.
        constants: how many operands are the same in all rounds.
        carried: how many go from round to round.
        order: the rows, as they are taken.
    """

    body: Program
    constants: int
    carried: int
    order: Sequence[int]


def scan_of(equation: Equation) -> Scan | None:
    """What a `jax.lax.scan` does; None if the equation is none."""
    if equation.primitive.name != "scan":
        return None
    params = equation.params
    if "ft_in" in params:  # from JAX 0.11 on
        constants, carried, _ = map(len, params["ft_in"].unpack())
    else:
        constants, carried = params["num_consts"], params["num_carry"]
    order = range(params["length"])
    (body,) = children(equation)
    return Scan(body, constants, carried, order[::-1] if params["reverse"] else order)


def everywhere(program: Program) -> Iterator[Equation]:
    """The equations of a program and of all programs inside of them."""
    for equation in program.jaxpr.eqns:
        yield equation
        for inner in children(equation):
            yield from everywhere(inner)


def lines_with(
    primitives: Collection[str], function: Callable[..., PyTree], *arguments: PyTree
) -> list[str]:
    """The lines of the user's code that ask for one of these primitives, without repetition."""
    program, _ = trace(function, *arguments)
    found = (one for one in everywhere(program) if one.primitive.name in primitives)
    return list(dict.fromkeys(map(line_of, found)))


def bind(equation: Equation, operands: Sequence[Any]) -> Sequence[Any]:
    """What an equation makes of operands."""
    return _bound(equation, operands, equation.params)


def bind_inside(equation: Equation, operands: Sequence[Any], rule: Rule) -> Sequence[Any]:
    """The same, the equations inside of it computed by ``rule``; functions with own derivatives as they are."""
    inner = mere_call(equation)
    if inner is not None:
        return evaluate(inner, operands, rule)
    if has_own_derivative(equation) or not children(equation):
        return bind(equation, operands)

    def changed(param: Any) -> Any:
        if isinstance(param, ClosedJaxpr):
            return _retraced(param, rule)
        if isinstance(param, Jaxpr):
            return _retraced(closed(param), rule).jaxpr
        return tuple(map(changed, param)) if type(param) is tuple else param

    params = {name: changed(param) for name, param in equation.params.items()}
    return _bound(equation, operands, params)


def evaluate(program: Program, arguments: Sequence[Any], rule: Rule = bind) -> list[Any]:
    """The results of a program, each equation computed by ``rule``."""
    values = values_of(program, arguments, rule)
    return [read(values, atom) for atom in program.jaxpr.outvars]


def values_of(program: Program, arguments: Sequence[Any], rule: Rule = bind) -> dict[Any, Any]:
    """The values of all variables of a program."""
    values = start(program, arguments)
    extend(values, program.jaxpr.eqns, rule)
    return values


def evaluated_by(
    rule_of: Callable[[], Rule], function: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """``function``, traced at each call and evaluated operation by operation, by a new rule of ``rule_of``."""

    def evaluated(*arguments: PyTree) -> PyTree:
        traced, shapes, static = eqx.filter_make_jaxpr(function)(*arguments)
        arrays = jax.tree.leaves(eqx.filter(arguments, eqx.is_array))
        outputs = evaluate(traced, arrays, rule_of())
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), outputs), static)

    return evaluated


def start(program: Program, arguments: Sequence[Any]) -> dict[Any, Any]:
    """The values of the variables that are known before an equation is computed."""
    variables = (*program.jaxpr.constvars, *program.jaxpr.invars)
    return dict(zip(variables, (*program.consts, *arguments), strict=True))


def extend(values: dict[Any, Any], equations: Iterable[Equation], rule: Rule = bind) -> None:
    """Adds what equations make of values that are known."""
    for equation in equations:
        operands = [read(values, atom) for atom in equation.invars]
        names = source_info_util.current_name_stack() + equation.source_info.name_stack
        asked_for = source_info_util.user_context(equation.source_info.traceback, name_stack=names)
        with asked_for, equation.ctx.manager:
            results = rule(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))


def read(values: dict[Any, Any], atom: Any) -> Any:
    """The value of a variable or of a number in the program itself."""
    return atom.val if is_literal(atom) else values[atom]


def aval_of(atom: Any) -> Any:
    """What is known of a value before it is computed: its shape and dtype, if it is an array."""
    return atom.aval


def is_literal(atom: Any) -> bool:
    """Whether an operand is a number in the program itself."""
    return isinstance(atom, Literal)


def line_of(equation: Equation) -> str:
    """Where the user's code asked for an equation: the innermost frame outside JAX and this library."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_NOT_THE_USERS):
            name = frame.function_name.rpartition("<locals>.")[-1]
            file = re.split(r"[/\\]", frame.file_name)[-1]
            return f"{file}:{frame.line_num} ({name})"
    return ""


def _retraced(program: Program, rule: Rule) -> Program:
    """A program with the same inputs and outputs, each equation computed by ``rule``."""
    avals = map(aval_of, program.jaxpr.invars)
    inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    changed, _ = trace(lambda *arguments: evaluate(program, arguments, rule), *inputs)
    return changed


def _bound(equation: Equation, operands: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    primitive = equation.primitive
    results = primitive.bind(*operands, **primitive.get_bind_params(params))
    return results if primitive.multiple_results else [results]


def _same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    kind = lambda aval: (getattr(aval, "shape", None), getattr(aval, "dtype", None))  # noqa: E731
    of_all = lambda atoms: [kind(aval_of(atom)) for atom in atoms]  # noqa: E731
    return of_all(left) == of_all(right)
