"""Batches with a key: a fresh one at every step, and the same when the step is taken again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfho

STREAM = rfho.Stream(jnp.arange(12.0), size=4, key=3)


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)))


def test_every_step_has_a_key_of_its_own_and_keeps_it():
    train = rfho.Keyed(STREAM, key=0)
    again = jax.jit(lambda t: train(t))
    keys = [bits(train(t)[1]) for t in range(50)]
    assert len(set(keys)) == 50
    assert keys == [bits(again(t)[1]) for t in range(50)]


@pytest.mark.parametrize(
    ("data", "batch"),
    [
        (STREAM, STREAM(2)),
        (np.arange(3.0), jnp.arange(3.0)),
        ({"x": jnp.ones(2)}, {"x": jnp.ones(2)}),
        (lambda t: 3 * t, 6),
        (None, None),
    ],
    ids=["stream", "arrays", "tree", "function", "nothing"],
)
def test_the_batch_is_that_of_the_data(data, batch):
    jax.tree.map(np.testing.assert_array_equal, rfho.Keyed(data, key=0)(2)[0], batch)


@pytest.mark.parametrize("key", [7, np.int64(7), jax.random.key(7)], ids=str)
def test_a_key_and_its_seed_are_the_same(key):
    assert bits(rfho.Keyed(None, key)(5)[1]) == bits(rfho.Keyed(None, 7)(5)[1])


def test_the_key_of_a_stream_may_be_used_again():
    epochs = {bits(jax.random.fold_in(jax.random.key(3), epoch)) for epoch in range(50)}
    assert not epochs & {bits(rfho.Keyed(STREAM, key=3)(t)[1]) for t in range(50)}


def test_one_for_each_task_is_made_under_vmap():
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda data, key: rfho.Keyed(data, key))(jnp.ones((3, 2)), keys)
    batch, key = jax.vmap(lambda one: one(4))(many)
    assert batch.shape == (3, 2)
    assert [bits(k) for k in key] == [bits(rfho.Keyed(None, k)(4)[1]) for k in keys]
