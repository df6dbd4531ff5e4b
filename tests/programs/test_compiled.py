"""The compiler is asked how much memory a function takes, whatever it is called with."""

import jax
import jax.numpy as jnp
import pytest

from rfho._programs.compiled import memory_of

SIDE = 64
X = jnp.ones((SIDE, SIDE), jnp.float32)
SIZE = 4 * SIDE**2


def needs_one(x, y):
    """A product of products: one of them lies in memory meanwhile."""
    return (x @ y) @ y


def test_what_lies_in_memory_meanwhile_is_counted():
    assert memory_of(needs_one, X, X) == SIZE
    assert memory_of(lambda x, y: x + y, X, X) == 0


def test_arrays_that_a_function_closes_over_are_not_counted():
    assert memory_of(lambda x: needs_one(x, X), X) == SIZE


def test_arguments_may_be_abstract_or_traced():
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert memory_of(needs_one, shape, shape) == SIZE
    seen = []

    @jax.jit
    def outer(x):
        seen.append(memory_of(lambda y: needs_one(x, y), x))
        return x

    outer(X)
    jax.vmap(outer)(jnp.stack([X, X]))
    assert set(seen) == {SIZE}


@pytest.mark.parametrize("length", [3, 30])
def test_a_tape_is_as_long_as_its_loop(length):
    rows = lambda x: jnp.sum(jax.lax.scan(lambda c, _: (c @ c, c), x, None, length)[1])  # noqa: E731
    assert length * SIZE <= memory_of(rows, X) <= (length + 4) * SIZE
