"""Which inputs outputs use, through every kind of program inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfho._programs.liveness import inputs_used, without_dead_code
from rfho._programs.walk import evaluate, everywhere, trace

C = jnp.arange(3.0)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda f: f,
        jax.jit,
        jax.checkpoint,
        lambda f: lambda a, b: jax.lax.cond(a[0] > 0, f, lambda a, b: a, a, b),
        lambda f: lambda a, b: jax.lax.scan(lambda c, _: (f(c, b), None), a, None, length=2)[0],
    ],
    ids=["plain", "jit", "remat", "cond", "scan"],
)
def test_an_input_that_reaches_no_output_is_found_through_calls(wrapped):
    function = wrapped(lambda a, b: C * a + 0 * jax.lax.stop_gradient(b["used"]))
    used = inputs_used(function, jnp.ones(3), {"used": jnp.ones(3), "idle": jnp.ones(3)})
    assert used == (True, {"used": True, "idle": False})


def test_an_output_that_is_no_float_uses_nothing():
    assert inputs_used(lambda a, b: (a, jnp.int32(b)), 1.0, 2.0) == (True, False)


def test_abstract_arguments_will_do():
    a = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert inputs_used(lambda a, b: C * a, a, a) == (True, False)


def test_dead_code_goes_and_inputs_stay():
    program, _ = trace(lambda a, b: (C * a, jnp.sin(b))[0], jnp.ones(3), jnp.ones(3))
    alive = without_dead_code(program)
    assert "sin" not in [equation.primitive.name for equation in everywhere(alive)]
    (result,) = evaluate(alive, [jnp.ones(3), jnp.ones(3)])
    np.testing.assert_array_equal(result, C)
