"""The race of bilevel methods: what the opponents compute, and what they are measured by."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.bilevel.ours import (
    on_all_data,
    single_loop_on_all_data,
    single_loop_under_adam,
)
from benchmarks.bilevel.peers import Peer, Rates, products, seeds, soba, under
from benchmarks.bilevel.problems import Batches, quadratic
from benchmarks.bilevel.recursive import PEERS
from benchmarks.bilevel.value import CLEANEST, Cleaned, Error, Quadratic

RATES = Rates(0.1, 0.1)


@pytest.fixture(scope="module")
def task():
    return quadratic((128, 64), (6, 3))


@pytest.fixture(scope="module")
def value(task):
    return Quadratic(task)


def test_nothing_is_below_the_minimum_of_the_value_function(value):
    rng = np.random.default_rng(0)
    assert min(value(rng.normal(size=3), None) for _ in range(20)) > 0
    assert value(np.full(3, np.nan), None) == float("inf")


def test_the_error_is_the_share_of_wrong_labels():
    error = Error(Batches((jnp.eye(4), jnp.array([0, 1, 2, 0]))))
    assert error(np.zeros(1), np.eye(4)) == 0.25
    assert error(np.zeros(1), np.full((4, 4), np.nan)) == float("inf")


def test_the_value_function_has_the_slope_that_is_used_for_its_minimum(value):
    x, step = np.array([0.3, -0.2, 0.5]), 1e-5 * np.eye(3)
    differences = [(value(x + one, None) - value(x - one, None)) / 2e-5 for one in step]
    np.testing.assert_allclose(value.slope_of(x), differences, rtol=1e-6)


@pytest.mark.parametrize("name", PEERS)
def test_a_step_keeps_the_structure_and_begins_with_the_outer_variable(task, name):
    peer = PEERS[name](task.sides)
    begun = jax.eval_shape(peer.start, task.x, task.w)
    after = jax.eval_shape(
        lambda carry, key: peer.step(carry, key, RATES), begun, jax.random.key(0)
    )
    assert jax.tree.structure(after) == jax.tree.structure(begun)
    assert after[0].shape == task.x.shape
    assert after[peer.trained].shape == task.w.shape


def test_what_the_opponents_descend_is_the_hypergradient(task, value):
    # One batch of 128 is not drawn: the means of both batches are the whole, at w*(x) and the exact q.
    x = np.array([0.3, -0.2, 0.5])
    w = value.solution(x)
    whole = tuple(a for a in task.train.arrays), tuple(a for a in task.valid.arrays)
    seed, direct = seeds(task.sides, jnp.asarray(x), jnp.asarray(w), whole[1])
    q = np.linalg.solve(value.curved, np.asarray(seed))
    args = (task.sides, jnp.asarray(x), jnp.asarray(w), jnp.asarray(q), whole[0])
    _, by_w, by_x = products(*args)
    np.testing.assert_allclose(by_w, seed, rtol=1e-4)
    np.testing.assert_allclose(direct - by_x, value.slope_of(x), rtol=1e-4)


def test_an_opponent_under_gradient_descent_is_itself(task):
    peer, rates = soba(task.sides), Rates(0.1, 0.3)
    other, key = under(peer, optax.sgd), jax.random.key(0)
    start = jnp.array([0.3, -0.2, 0.5]), task.w + 0.1
    once = jax.jit(lambda x, w: peer.step(peer.start(x, w), key, rates))(*start)
    again = jax.jit(lambda x, w: other.step(other.start(x, w), key, rates))(*start)
    for mine, theirs in zip(again[:3], once, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert np.all(np.asarray(again[0]) != np.asarray(start[0]))


def test_newton_on_all_data_descends_the_value_function(task, value):
    peer = on_all_data(task)

    @jax.jit
    def after(key):
        step = lambda i, carry: peer.step(carry, key, RATES)  # noqa: E731
        return jax.lax.fori_loop(0, 60, step, begun)

    begun = peer.start(task.x, task.w)
    ended = after(jax.random.key(0))
    begin = value(np.asarray(task.x, np.float64), None)
    assert value(np.asarray(ended.free, np.float64), None) < 0.1 * begin


def test_a_gradient_below_the_rounding_of_the_outer_variable_is_not_lost():
    peer = Peer(
        lambda x, w: (x, w), lambda carry, key, rates: (carry[0] - rates.outer * 1e-9, carry[1])
    )
    signs = under(peer, optax.sign_sgd, (-12.0, 12.0))
    carry = signs.start(jnp.array([5.0]), jnp.zeros(1))
    assert signs.step(carry, jax.random.key(0), Rates(0.1, 2.0))[0] == 3.0


def test_the_value_function_of_data_cleaning_is_that_of_the_minimiser(task, value):
    # Quadratics, whose minimiser is known.
    low, high = np.linalg.eigvalsh(value.curved)[[0, -1]]
    cleaned = Cleaned(task, (float(low), float(high)))
    for x in (np.array([0.3, -0.2, 0.5]), np.zeros(3)):
        found = cleaned(x, None) + CLEANEST
        np.testing.assert_allclose(found, value(x, None) + value.minimum, atol=1e-5)
    assert cleaned(np.full(3, np.nan), None) == float("inf")


def test_signs_on_all_data_come_nearer_to_the_minimum(task, value):
    peer = single_loop_on_all_data(task, 0.1)
    carry = peer.start(jnp.full(3, -9.0), task.w)
    before = value(np.asarray(carry.free), None)
    step = jax.jit(lambda carry: peer.step(carry, jax.random.key(0), RATES))
    for _ in range(30):
        carry = step(carry)
    assert value(np.asarray(carry.free), None) < before


def test_what_is_in_batches_differs_from_run_to_run(task):
    peer = single_loop_under_adam(task, 32)
    begun = peer.start(jnp.zeros(3), task.w)
    step = jax.jit(lambda carry, key: peer.step(carry, key, RATES))
    one, other = (step(step(begun, key), key) for key in jax.random.split(jax.random.key(0)))
    assert np.any(np.asarray(one.carry.run.adjoint) != np.asarray(other.carry.run.adjoint))
