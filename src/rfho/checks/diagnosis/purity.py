"""Is training a function? It is traced twice, and the two programs are compared.

What NumPy, `random` or an iterator hand to a step is frozen into the program as a constant, and is
another one when the program is traced again. What a layer writes into itself while it is traced is a
tracer that escaped: the second trace finds it among its constants. What is *not* seen: a difference
inside a function that was compiled by `jax.jit` before, whose trace JAX does not repeat, and a file or
a clock that happens to give the same twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs.tracing import is_traced
from rfho._programs.walk import (
    Equation,
    Program,
    children,
    everywhere,
    is_literal,
    line_of,
    read,
    trace,
)
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper

_CALLBACKS = ("pure_callback", "io_callback")


class Difference(NamedTuple):
    """Where two programs that should be one differ.

    Attributes:
        line: of the user's code, or "".
        leaked: whether a tracer that escaped is the reason.
    """

    line: str
    leaked: bool


def repeat_findings(problem: AbstractMoment, hyper: Hyper) -> list[Finding]:
    """At most one finding for each of batches, initial state, step and objective."""
    t = jnp.zeros((), jnp.int32)
    state = jax.eval_shape(problem.init, hyper)
    found = list[Finding]()
    if callable(problem.train):
        difference = difference_of(problem.train_batch, t)
        if difference is not None:
            return [_batch(difference)]
    parts = (
        ("the initial state", problem.init, (hyper,)),
        ("a step", problem.step, (state, hyper, t)),
        (
            "the objective",
            lambda s, h: problem.evaluate(problem.dynamics.output(s), h),
            (state, hyper),
        ),
    )
    for name, function, arguments in parts:
        difference = difference_of(function, *arguments)
        if difference is not None:
            found.append(_part(name, difference))
    return found


def difference_of(function: Callable[..., Any], *arguments: Any) -> Difference | None:
    """How two traces of ``function`` differ; or two values, if it calls back to Python. None if not at all."""
    (one, _), (other, _) = (trace(function, *arguments) for _ in range(2))
    found = _between(one, other)
    if found is not None or not _calls_back(one):
        return found
    return _between_values(function, *arguments)


def _between(one: Program, other: Program) -> Difference | None:
    constants = list(zip(other.jaxpr.constvars, one.consts, other.consts, strict=False))
    for variable, left, right in constants:
        if is_traced(left) or is_traced(right):
            return Difference(_line_of_use(other, variable), leaked=True)
        if not _same(left, right):
            return Difference(_line_of_use(other, variable), leaked=False)
    if len(one.consts) != len(other.consts):
        return Difference("", leaked=any(map(is_traced, other.consts)))
    return _between_equations(one, other)


def _between_equations(one: Program, other: Program) -> Difference | None:
    for left, right in zip(one.jaxpr.eqns, other.jaxpr.eqns, strict=False):
        if left.primitive is not right.primitive or _literals(left) != _literals(right):
            return Difference(line_of(right), leaked=False)
        for inner in zip(children(left), children(right), strict=False):
            found = _between(*inner)
            if found is not None:
                return found._replace(line=found.line or line_of(right))
    alike = len(one.jaxpr.eqns) == len(other.jaxpr.eqns)
    return None if alike else Difference("", leaked=False)


def _literals(equation: Equation) -> list[str]:
    return [repr(np.asarray(read({}, atom))) for atom in equation.invars if is_literal(atom)]


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if jnp.issubdtype(left.dtype, jax.dtypes.extended):
        left, right = jax.random.key_data(left), jax.random.key_data(right)
    left, right = np.asarray(left), np.asarray(right)
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def _line_of_use(program: Program, variable: Any) -> str:
    users = (eqn for eqn in program.jaxpr.eqns if any(var is variable for var in eqn.invars))
    return next(map(line_of, users), "")


def _calls_back(program: Program) -> bool:
    return any(equation.primitive.name in _CALLBACKS for equation in everywhere(program))


def _between_values(function: Callable[..., Any], *arguments: Any) -> Difference | None:
    ones = lambda leaf: jnp.ones(leaf.shape, leaf.dtype)  # noqa: E731
    arguments = jax.tree.map(
        lambda x: ones(x) if isinstance(x, jax.ShapeDtypeStruct) else x, arguments
    )
    pairs = zip(*(jax.tree.leaves(function(*arguments)) for _ in range(2)), strict=True)
    return None if all(_same(*pair) for pair in pairs) else Difference("", leaked=False)


def _batch(difference: Difference) -> Finding:
    message = (
        f"train gives another batch when it is asked for step 0 again{_at(difference)}: the way back, or the "
        "next run, would see other data than the way forward. Make it a pure function of the step, as "
        "rfho.Stream(data, size, key) is"
    )
    return Finding(Kind.BATCH_NOT_REPLAYED, Where("train", 0), message, Severity.ERROR)


def _part(name: str, difference: Difference) -> Finding:
    if difference.leaked:
        message = (
            f"{name} uses what an earlier trace of it wrote into a Python object{_at(difference)}: running "
            "statistics, counters and the like have no derivative there and do not change from step to step. "
            "Put them into the state that dynamics carry"
        )
        return Finding(Kind.HIDDEN_STATE, Where(step=0), message, Severity.ERROR)
    message = (
        f"{name} is another program when it is traced again{_at(difference)}: a number drawn by NumPy or "
        "random, read from a clock or from a Python object that changes, is frozen when it is compiled and is "
        "the same in all steps. Draw with jax.random from a key in the batch, or put it into the state"
    )
    return Finding(Kind.HOST_RANDOMNESS, Where(step=0), message, Severity.ERROR)


def _at(difference: Difference) -> str:
    return f" (at {difference.line})" if difference.line else ""
