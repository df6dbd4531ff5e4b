"""Programs that are begun and not waited for give what `equinox.filter_jit` gives, and are traced as often."""

import equinox as eqx
import jax.numpy as jnp
import pytest

from rfho._programs.begun import begun, begun_in_place


@pytest.mark.parametrize("begin", [begun, begun_in_place, eqx.filter_jit])
def test_what_is_no_array_is_static(begin):
    traced = []

    def scaled(given, memory):
        traced.append(given["name"])
        return {"x": given["x"] * given["by"], "name": given["name"]}, memory + 1

    program = begin(scaled)
    for by, name in [(2.0, "a"), (2.0, "a"), (3.0, "a"), (3.0, "b")]:
        out, memory = program({"x": jnp.arange(3.0), "by": by, "name": name}, jnp.zeros(3))
        assert (out["name"], out["x"].tolist(), memory.tolist()) == (name, [0, by, 2 * by], [1] * 3)
    assert traced == ["a", "a", "b"]


def test_in_place_memory_is_given_up_and_the_first_argument_kept():
    first, memory = jnp.ones(3), jnp.ones(1000)
    begun_in_place(lambda x, memory: (x + 1, memory + 1))(first, memory)
    assert memory.is_deleted()
    assert not first.is_deleted()
