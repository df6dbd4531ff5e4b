"""Minibatches without replacement, as a pure function of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfho
from rfho.problem.permutation import permuted

SIZES = [1, 2, 3, 4, 5, 8, 9, 17, 31, 33, 100, 4096]
TEN = rfho.Stream(jnp.arange(10), size=3, key=7)


def epoch_of(stream, epoch):
    per_epoch = stream.data.shape[0] // stream.size
    return np.concatenate([stream(epoch * per_epoch + i) for i in range(per_epoch)])


@pytest.mark.parametrize("count", SIZES)
def test_every_epoch_is_a_permutation(count):
    orders = jax.vmap(lambda key: permuted(jnp.arange(count), count, key))(
        jax.random.split(jax.random.key(0), 5)
    )
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(count), (5, 1)))


@pytest.mark.parametrize("count", [5, 6, 10])
def test_pairs_of_examples_are_about_equally_likely_to_come_first(count):
    """Small domains are hard for a Feistel network: over 20 000 keys, the deviation is that of chance."""
    keys = jax.random.split(jax.random.key(1), 20_000)
    first, second = np.asarray(jax.vmap(lambda key: permuted(jnp.arange(2), count, key))(keys)).T
    pairs = count * (count - 1)
    seen = np.bincount(first * count + second, minlength=count**2).reshape(count, count)
    seen = seen[~np.eye(count, dtype=bool)]
    chi_squared = np.sum((seen - 20_000 / pairs) ** 2) / (20_000 / pairs)
    freedom = pairs - 1
    assert chi_squared < freedom + 4 * np.sqrt(2 * freedom)


def test_no_example_comes_twice_in_an_epoch():
    for epoch in range(3):
        seen = epoch_of(TEN, epoch)
        assert len(seen) == 9
        assert len(set(seen.tolist())) == 9


def test_epochs_have_different_orders_and_leave_out_different_examples():
    orders = [tuple(epoch_of(TEN, epoch).tolist()) for epoch in range(20)]
    assert len(set(orders)) == 20
    assert len({45 - sum(order) for order in orders}) > 3


def test_keys_have_different_orders():
    other = rfho.Stream(TEN.data, size=3, key=8)
    assert epoch_of(TEN, 0).tolist() != epoch_of(other, 0).tolist()


@jax.jit
def in_a_loop(t):
    return jax.lax.map(TEN, jnp.stack([t + 1, t]))[1]


@given(t=st.integers(0, 2**31 - 2))
def test_a_step_has_one_batch_from_wherever_it_is_asked_for(t):
    np.testing.assert_array_equal(TEN(t), in_a_loop(jnp.asarray(t, jnp.int32)))
    np.testing.assert_array_equal(TEN(t), TEN.data[TEN.index(t)])


def test_all_leaves_are_indexed_alike():
    data = {"x": np.arange(12.0).reshape(6, 2), "y": (np.arange(6),)}
    batch = rfho.Stream(data, size=4, key=0)(3)
    assert batch["x"].shape == (4, 2)
    np.testing.assert_array_equal(batch["x"][:, 0], 2 * batch["y"][0])


def test_a_full_batch_holds_every_example():
    stream = rfho.Stream(jnp.arange(5), size=5, key=0)
    assert sorted(stream(11).tolist()) == [0, 1, 2, 3, 4]


def test_an_int_is_the_seed_of_a_key():
    with_key = rfho.Stream(TEN.data, size=3, key=jax.random.key(7))
    np.testing.assert_array_equal(TEN(5), with_key(5))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (np.arange(10), 0, "size=0, but a batch must be an int between 1 and the 10 examples"),
        (np.arange(10), 11, "size=11"),
        (np.arange(10), 2.0, r"size=2\.0"),
        (np.arange(10), True, "size=True"),
        (np.zeros((0, 3)), 1, "has no examples"),
        (
            {"x": np.zeros((4, 2)), "y": np.zeros(5)},
            2,
            r'data\["y"\] has 5 examples and data\["x"\] has 4',
        ),
        ({}, 1, "has no arrays"),
        (np.float64(3), 1, "has no examples"),
    ],
)
def test_what_makes_no_stream_is_refused(data, size, message):
    with pytest.raises(ValueError, match=message):
        rfho.Stream(data, size, key=0)


def test_indexed_batches_repeat_their_rows():
    indexed = rfho.Indexed({"x": jnp.arange(5.0)}, [[0, 1], [4, 4], [2, 0]])
    assert [indexed(t)["x"].tolist() for t in range(4)] == [[0, 1], [4, 4], [2, 0], [0, 1]]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 1], "must be ints of shape"),
        ([[0.0, 1.0]], "must be ints of shape"),
        (np.zeros((0, 2), int), "must be ints of shape"),
        ([[0, 5]], "there are 5 examples: 0 to 4"),
        ([[-1, 0]], "indices from -1 to 0"),
    ],
)
def test_what_indexes_nothing_is_refused(index, message):
    with pytest.raises(ValueError, match=message):
        rfho.Indexed(jnp.arange(5), index)
