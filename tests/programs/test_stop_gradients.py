"""Derivatives through what stop_gradient cuts, wherever it stands in a program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfho._programs.stop_gradients import stopping_lines, unstopped

stop = jax.lax.stop_gradient


@jax.custom_vjp
def own(x):
    return stop(x) ** 2


own.defvjp(lambda x: (x**2, x), lambda x, cotangent: (7 * cotangent,))

WHERE = {
    "plain": lambda x: x * stop(x),
    "jit": lambda x: jax.jit(lambda y: y * stop(y))(x),
    "scan": lambda x: jax.lax.scan(lambda c, _: (c * stop(x), None), x, None, length=1)[0],
    "carry": lambda x: jax.lax.fori_loop(0, 1, lambda i, c: c * stop(c), x),
    "while": lambda x: jax.lax.while_loop(
        lambda c: c[0] < 1, lambda c: (c[0] + 1, c[1] * stop(c[1])), (0, x)
    )[1],
    "cond": lambda x: jax.lax.cond(x > 0, lambda y: y * stop(y), lambda y: y, x),
    "remat": jax.checkpoint(lambda x: x * stop(x)),
    "vmap": lambda x: jax.vmap(lambda y: y * stop(y))(x[None])[0],
}


@pytest.mark.parametrize("name", WHERE)
def test_the_value_stays_and_the_derivative_comes_back(name):
    function, x = WHERE[name], jnp.asarray(1.5)
    (line,) = stopping_lines(function, x)
    assert "test_stop_gradients.py" in line
    for lines, slope in (((line,), 3.0), ((), 1.5), (("elsewhere",), 1.5)):
        value, tangent = jax.jvp(unstopped(function, lines), (x,), (jnp.ones(()),))
        np.testing.assert_allclose(value, 2.25)
        np.testing.assert_allclose(tangent, slope)


def test_a_derivative_of_ones_own_stays():
    x = jnp.asarray(1.5)
    assert float(jax.grad(unstopped(own, stopping_lines(own, x)))(x)) == 7


def test_trees_keys_and_integers_pass():
    def function(tree):
        noise = jax.random.normal(tree["key"], (2,))
        return {"key": tree["key"], "x": stop(tree["x"]) * noise, "t": tree["t"] + 1}

    tree = {"key": jax.random.key(0), "x": jnp.ones(2), "t": jnp.asarray(3)}
    out = unstopped(function, stopping_lines(function, tree))(tree)
    assert int(out["t"]) == 4
    np.testing.assert_array_equal(out["x"], function(tree)["x"])


def test_without_a_stop_there_is_no_line():
    assert stopping_lines(jnp.sin, jnp.ones(())) == []
