"""Random forward estimates: right on average, with the spread that they state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import RandomForwardHyperGradient, ReverseHyperGradient

DRAWS = 4000
HYPER = {"lr": jnp.asarray(0.1), "l2": jnp.linspace(0.1, 0.5, 5)}
SIZE = 6  # scalars in HYPER


def square(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def penalised(w, hyper, batch):
    return square(w, hyper, batch) + jnp.sum(hyper["l2"] * w**2)


def problem_of(objective=square, horizon=4):
    dynamics = rfho.Descent(
        penalised, lambda hyper: optax.sgd(hyper["lr"], momentum=0.5), jnp.ones(5)
    )
    train, valid = jnp.linspace(-1, 2, 5), jnp.linspace(-2, 2, 5)
    return rfho.Problem(dynamics, objective, train, valid, horizon)


PROBLEM = problem_of()


def flat(hypergradient):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(hypergradient)])


EXACT = flat(rfho.hyper_gradient(PROBLEM, HYPER).hypergradient)


def estimates(directions):
    """Many draws: ĝ of shape (draws, 6), and the standard errors that were stated."""
    method = RandomForwardHyperGradient(directions, key=1)

    @jax.jit
    @jax.vmap
    def draw(carry):
        estimate, _ = method.estimate(PROBLEM, HYPER, carry)
        leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(estimate.hypergradient)]
        return jnp.concatenate(leaves), estimate.aux.stats["standard_error"]

    return tuple(np.asarray(array) for array in draw(jnp.arange(DRAWS)))


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_the_mean_is_the_hypergradient_and_the_spread_is_as_stated(directions):
    found, stated = estimates(directions)
    mean, error = found.mean(axis=0), found.std(axis=0) / np.sqrt(DRAWS)
    assert np.all(np.abs(mean - EXACT) <= 4 * error)
    # E‖ĝ - ∇f‖² = (m/b - 1) ‖∇f‖², which falls as 1/b and is zero at b = m.
    squares = np.sum((found - EXACT) ** 2, axis=1)
    variance = (SIZE / directions - 1) * np.sum(EXACT**2)
    assert abs(squares.mean() - variance) <= 4 * squares.std() / np.sqrt(DRAWS)
    assert abs((stated**2).mean() - variance) <= 4 * (stated**2).std() / np.sqrt(DRAWS)


@pytest.mark.parametrize("directions", [SIZE, 100])
def test_all_directions_give_the_hypergradient_itself(directions):
    found = rfho.hyper_gradient(PROBLEM, HYPER, RandomForwardHyperGradient(directions, key=0))
    np.testing.assert_allclose(flat(found.hypergradient), EXACT, rtol=1e-10)
    assert float(found.aux.stats["standard_error"]) == 0


def test_every_leaf_follows_its_own_objective():
    def cube(w, hyper, batch):
        return jnp.sum(w**3) + hyper["lr"]

    problem = problem_of({"lr": cube, "l2": square})
    expected = rfho.hyper_gradient(problem, HYPER)
    found = rfho.hyper_gradient(problem, HYPER, RandomForwardHyperGradient(SIZE, key=0))
    np.testing.assert_allclose(flat(found.hypergradient), flat(expected.hypergradient), rtol=1e-10)


def test_chunks_change_nothing():
    whole = RandomForwardHyperGradient(5, key=3)
    parts = RandomForwardHyperGradient(5, key=3, chunk=2)
    expected = rfho.hyper_gradient(PROBLEM, HYPER, whole)
    found = rfho.hyper_gradient(PROBLEM, HYPER, parts)
    np.testing.assert_allclose(flat(found.hypergradient), flat(expected.hypergradient), rtol=1e-12)
    for name, number in expected.aux.stats.items():
        np.testing.assert_allclose(found.aux.stats[name], number, rtol=1e-12)


def test_each_outer_step_draws_anew_and_can_be_repeated():
    method = RandomForwardHyperGradient(1, key=0)
    step = jax.jit(lambda carry: method.estimate(PROBLEM, HYPER, carry))
    first, carry = step(method.init(PROBLEM, HYPER))
    second, _ = step(carry)
    again, _ = step(method.init(PROBLEM, HYPER))
    assert not np.allclose(flat(first.hypergradient), flat(second.hypergradient))
    assert np.array_equal(flat(first.hypergradient), flat(again.hypergradient))


def test_memory_does_not_depend_on_the_horizon():
    def memory(horizon):
        estimate = RandomForwardHyperGradient(2, key=0).estimate
        problem = problem_of(horizon=horizon)
        compiled = jax.jit(lambda h: estimate(problem, h, jnp.asarray(0))[0]).lower(HYPER).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(10_000) == memory(100)


def test_it_tunes():
    method = RandomForwardHyperGradient(2, key=0)
    start = ReverseHyperGradient().conclude(PROBLEM, HYPER, None)[0]
    solution = rfho.tune(
        PROBLEM, HYPER, method=method, optim=optax.sgd(0.02), domain=rfho.NonNegative(), steps=30
    )
    assert solution.value < 0.9 * start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": 0, "key": 0}, "directions=0"),
        ({"directions": 1, "key": 0, "chunk": 0}, "chunk=0"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomForwardHyperGradient(**arguments)
