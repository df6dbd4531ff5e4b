"""Programs are walked by one idea of what an equation calls, on every release of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfho._programs.walk import (
    bind,
    bind_inside,
    called,
    children,
    evaluate,
    everywhere,
    has_own_derivative,
    is_branch,
    is_loop,
    line_of,
    mere_call,
    scan_of,
    trace,
)


@jax.custom_jvp
def with_own_jvp(x):
    return jnp.sin(x)


with_own_jvp.defjvp(lambda x, dx: (jnp.sin(x[0]), 2 * dx[0]))


@jax.custom_vjp
def with_own_vjp(x):
    return jnp.sin(x)


with_own_vjp.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (2 * g,))


def scanned(x):
    turned, rows = jax.lax.scan(lambda c, a: (jnp.sin(c) * a, c + x[0]), x[0], x, reverse=True)
    return turned + rows


def repeated(x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1]


CALLS = {
    "jit": jax.jit(lambda x: jnp.sin(x)),
    "jit in jit": jax.jit(lambda x: jax.jit(jnp.sin)(x)),
    "remat": jax.checkpoint(lambda x: jnp.sin(x)),
    "custom_jvp": with_own_jvp,
    "custom_vjp": with_own_vjp,
}
OTHERS = {
    "cond": lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    "scan": scanned,
    "while": repeated,
}
LEAVES = {
    "reduce": lambda x: jax.lax.reduce(x, x[0], lambda a, b: 2 * a + b, (0,)),
    "sum": jnp.sum,
}
X = jnp.asarray([0.3, -0.5, 0.8])

both = pytest.mark.parametrize("name", [*CALLS, *OTHERS, *LEAVES])


def function_of(name):
    return {**CALLS, **OTHERS, **LEAVES}[name]


def with_program_inside(name):
    program, _ = trace(function_of(name), X)
    return next(equation for equation in program.jaxpr.eqns if children(equation))


@pytest.mark.parametrize("name", CALLS)
def test_an_equation_with_one_program_of_its_own_operands_is_a_call(name):
    assert "sin" in [e.primitive.name for e in everywhere(called(with_program_inside(name)))]


@pytest.mark.parametrize("name", [*OTHERS, "reduce"])
def test_branches_loops_and_reductions_are_none(name):
    assert called(with_program_inside(name)) is None


def test_every_kind_is_told_from_the_others():
    told = lambda ask: {  # noqa: E731
        name for name in (*CALLS, *OTHERS, "reduce") if ask(with_program_inside(name))
    }
    assert told(is_branch) == {"cond"}
    assert told(is_loop) == {"scan", "while"}
    assert told(has_own_derivative) == {"custom_jvp", "custom_vjp"}
    assert told(lambda equation: mere_call(equation) is not None) == {"jit", "jit in jit"}


@both
def test_a_program_evaluates_to_what_its_function_gives(name):
    function = function_of(name)
    program, shape = trace(function, X)
    (result,) = evaluate(program, [X])
    np.testing.assert_array_equal(result, function(X))
    assert (shape.shape, shape.dtype) == (result.shape, result.dtype)


def sine_to_cosine(equation, operands):
    if equation.primitive.name == "sin":
        return [jnp.cos(*operands)]
    return bind_inside(equation, operands, sine_to_cosine)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ["jit", "jit in jit", "remat", *OTHERS])
def test_a_rule_reaches_what_is_inside(name, jit):
    function = function_of(name)
    program, _ = trace(function, X)
    changed = lambda x: evaluate(program, [x], sine_to_cosine)[0]  # noqa: E731
    (result,) = [(jax.jit(changed) if jit else changed)(X)]
    source = {"sin": jnp.cos}
    with pytest.MonkeyPatch.context() as patch:
        for primitive, other in source.items():
            patch.setattr(jnp, primitive, other)
        expected = fresh(name)(X)
    np.testing.assert_allclose(result, expected, rtol=1e-14)


def fresh(name):
    """The function anew, as JAX remembers the traces of functions that it knows."""
    return {
        "jit": lambda x: jnp.sin(x),
        "jit in jit": lambda x: jnp.sin(x),
        "remat": lambda x: jnp.sin(x),
        "cond": lambda x: jnp.sin(x) if x[0] > 0 else jnp.cos(x),
        "scan": scanned,
        "while": repeated,
    }[name]


@pytest.mark.parametrize("name", ["custom_jvp", "custom_vjp"])
def test_a_rule_leaves_a_function_with_its_own_derivative_alone(name):
    program, _ = trace(function_of(name), X)
    changed = lambda x: evaluate(program, [x], sine_to_cosine)[0]  # noqa: E731
    np.testing.assert_array_equal(changed(X), jnp.sin(X))
    np.testing.assert_array_equal(jax.vjp(changed, X)[1](jnp.ones(3))[0], 2.0)


@pytest.mark.parametrize("name", ["remat", "scan", "cond"])
def test_what_a_rule_has_reached_can_be_differentiated_and_mapped(name):
    program, _ = trace(function_of(name), X)
    again = lambda x: jnp.sum(evaluate(program, [x], lambda *e: bind_inside(*e, bind))[0])  # noqa: E731
    plain = lambda x: jnp.sum(function_of(name)(x))  # noqa: E731
    rows = jnp.stack([X, -X])
    found, expected = (jax.vmap(jax.grad(function))(rows) for function in (again, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_a_scan_tells_constants_carry_and_order():
    scan = scan_of(with_program_inside("scan"))
    assert (scan.constants, scan.carried, list(scan.order)) == (1, 1, [2, 1, 0])
    assert scan_of(with_program_inside("while")) is None


def test_a_scan_by_hand_is_the_scan():
    equation = with_program_inside("scan")
    scan = scan_of(equation)
    program, _ = trace(scanned, X)

    def by_hand(equation, operands):
        if equation.primitive.name != "scan":
            return bind(equation, operands)
        fixed, carry = operands[: scan.constants], operands[scan.constants :][: scan.carried]
        rows, outputs = operands[scan.constants + scan.carried :], [None] * len(scan.order)
        for i in scan.order:
            results = evaluate(scan.body, [*fixed, *carry, *(row[i] for row in rows)])
            carry, outputs[i] = results[: scan.carried], results[scan.carried :]
        return [*carry, *map(jnp.stack, zip(*outputs, strict=True))]

    np.testing.assert_allclose(evaluate(program, [X], by_hand)[0], scanned(X), rtol=1e-14)


def test_everywhere_is_inside_too():
    program, _ = trace(lambda x: CALLS["remat"](scanned(x)) + OTHERS["cond"](x), X)
    names = [equation.primitive.name for equation in everywhere(program)]
    assert names.count("sin") == 3
    assert names.count("cos") == 1


def test_the_line_of_an_equation_is_the_users():
    def somewhere(x):
        return jnp.linalg.norm(x)

    program, _ = trace(somewhere, X)
    (line,) = {line_of(equation) for equation in program.jaxpr.eqns}
    assert line.startswith("test_walk.py:")
    assert line.endswith("(somewhere)")


def test_an_evaluated_equation_keeps_its_line():
    def somewhere(x):
        return jnp.sin(x)

    program, _ = trace(somewhere, X)
    again, _ = trace(lambda x: evaluate(program, [x]), X)
    assert "(somewhere)" in line_of(again.jaxpr.eqns[0])
