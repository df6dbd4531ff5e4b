"""Abstract evaluation keeps what the type of an array says: explicit sharding and memory space."""

import jax
import jax.numpy as jnp
import pytest

from rfho._programs.avals import abstract, aval_of, bytes_on_device, in_space

HOST, DEVICE = jax.memory.Space.Host, jax.memory.Space.Device


def to_host(x):
    return {"x": jax.device_put(2 * x, HOST), "n": 3 * x.astype(int)}


def test_outputs_keep_structure_dtype_and_memory_space():
    out = abstract(to_host, jnp.ones(3))
    assert (out["x"].shape, out["x"].dtype, out["x"].memory_space) == ((3,), float, HOST)
    assert (out["n"].dtype, out["n"].memory_space) == (int, DEVICE)


def test_what_is_abstract_can_be_evaluated_again():
    again = abstract(lambda out: out["x"], abstract(to_host, jnp.ones(3)))
    assert again.memory_space == HOST
    assert jax.eval_shape(lambda out: out["n"], abstract(to_host, jnp.ones(3))).shape == (3,)


def test_under_a_trace_functions_may_close_over_what_is_traced():
    def shape_of_product(x):
        return abstract(lambda y: jnp.outer(x, y), jnp.ones(2)).shape[0] * x

    assert jax.jit(shape_of_product)(jnp.ones(3)).tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("leaf", [jnp.ones(2), jax.ShapeDtypeStruct((2,), float)])
def test_every_array_has_a_type(leaf):
    aval = aval_of(leaf)
    assert aval.shape == (2,)
    assert aval_of(aval) is aval


def test_an_array_is_moved_only_if_it_lies_elsewhere():
    x = jnp.ones(2)
    assert in_space(x, DEVICE) is x
    assert aval_of(in_space(x, HOST)).memory_space == HOST


@pytest.mark.parametrize(("backend", "expected"), [("cpu", 24 + 24), ("gpu", 24)])
def test_what_lies_on_the_host_takes_no_memory_of_an_accelerator(monkeypatch, backend, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert bytes_on_device(abstract(to_host, jnp.ones(3))) == expected
