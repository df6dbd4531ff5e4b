"""The first NaN or infinity is traced to its equation, through every kind of program inside."""

import jax
import jax.numpy as jnp
import pytest

from rfho._programs.first_bad_equation import origin_of_non_finite


def looped(function):
    def after(x):
        rows = jnp.stack([x + 1, x, x + 2])
        return jax.lax.scan(lambda c, row: (c + function(row), row), 0.0 * x, rows)[0]

    return after


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda f: f,
        jax.jit,
        jax.checkpoint,
        lambda f: lambda x: jax.lax.cond(x[0] < 5, f, lambda x: x, x),
        looped,
    ],
    ids=["plain", "jit", "remat", "cond", "scan"],
)
def test_the_origin_is_found_inside(wrapped):
    def somewhere(x):
        return jnp.log(x)

    origin = origin_of_non_finite(wrapped(somewhere), jnp.asarray([1.0, 0.0]))
    assert origin.primitive == "log"
    assert origin.operands == "0 to 1"
    assert origin.line.startswith("test_first_bad_equation.py:")
    assert origin.line.endswith("(somewhere)")


def test_an_infinite_derivative_is_told_by_its_function():
    origin = origin_of_non_finite(jax.grad(lambda x: jnp.sqrt(x) * 0), 0.0)
    assert (origin.primitive, origin.derivative, origin.operands) == ("sqrt", True, "0")


def test_finite_results_have_no_origin():
    assert origin_of_non_finite(lambda x: (jnp.sqrt(x), jax.random.key(0)), 1.0) is None
