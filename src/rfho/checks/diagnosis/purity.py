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
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from rfho._programs.first_bad_equation import inner_programs, line_of
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.problem.problem import Problem
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


def repeat_findings(problem: Problem, hyper: Hyper) -> list[Finding]:
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
    # A fresh lambda each time: JAX remembers the traces of functions that it knows.
    one, other = (jax.make_jaxpr(lambda *args: function(*args))(*arguments) for _ in range(2))
    found = _between_programs(one, other)
    if found is not None or not _calls_back(one.jaxpr):
        return found
    return _between_values(function, *arguments)


def _between_programs(one: ClosedJaxpr, other: ClosedJaxpr) -> Difference | None:
    constants = list(zip(other.jaxpr.constvars, one.consts, other.consts, strict=False))
    for variable, left, right in constants:
        if any(isinstance(value, Tracer) for value in (left, right)):
            return Difference(_line_of_use(other.jaxpr, variable), leaked=True)
        if not _same(left, right):
            return Difference(_line_of_use(other.jaxpr, variable), leaked=False)
    if len(one.consts) != len(other.consts):
        leaked = any(isinstance(value, Tracer) for value in other.consts)
        return Difference("", leaked)
    return _between(one.jaxpr, other.jaxpr)


def _between(one: Jaxpr, other: Jaxpr) -> Difference | None:
    for left, right in zip(one.eqns, other.eqns, strict=False):
        if left.primitive is not right.primitive or _literals(left) != _literals(right):
            return Difference(line_of(right), leaked=False)
        for inner in zip(_closed(left), _closed(right), strict=False):
            found = _between_programs(*inner)
            if found is not None:
                return found._replace(line=found.line or line_of(right))
    return None if len(one.eqns) == len(other.eqns) else Difference("", leaked=False)


def _closed(equation: JaxprEqn) -> list[ClosedJaxpr]:
    params = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda p: isinstance(p, ClosedJaxpr | Jaxpr)
    )
    closed = [param for param in params if isinstance(param, ClosedJaxpr)]
    opened = [ClosedJaxpr(param, []) for param in params if isinstance(param, Jaxpr)]
    return closed + opened


def _literals(equation: JaxprEqn) -> list[str]:
    return [repr(np.asarray(var.val)) for var in equation.invars if isinstance(var, Literal)]


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if jnp.issubdtype(left.dtype, jax.dtypes.extended):
        left, right = jax.random.key_data(left), jax.random.key_data(right)
    left, right = np.asarray(left), np.asarray(right)
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def _line_of_use(jaxpr: Jaxpr, variable: Any) -> str:
    users = [eqn for eqn in jaxpr.eqns if any(var is variable for var in eqn.invars)]
    return line_of(users[0]) if users else ""


def _calls_back(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name in _CALLBACKS or any(map(_calls_back, inner_programs(eqn)))
        for eqn in jaxpr.eqns
    )


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
