"""One step by a difference (DARTS, SAMA) and the dynamic barrier (BOME): the lines of the papers, and their ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_first_order import opaque, slope_by_hyper, through
from test_single_loop import (
    BATCHES,
    ETA,
    HYPER,
    START,
    STREAM,
    X,
    Y,
    assert_close,
    cross,
    estimates,
    gradient,
    minimiser_hypergradient,
    problem_of,
    product,
    seed,
)

import rfho
from rfho import DynamicBarrierHyperGradient, OneStepHyperGradient, OnlineTruncatedHyperGradient


def test_under_descent_one_step_is_the_product_of_darts():
    w, t = START, 0
    for found in estimates(OneStepHyperGradient(every=2), problem_of(STREAM), 4):
        w = w - ETA * gradient(w, HYPER, BATCHES[t])
        batch = BATCHES[t + 1]
        after = w - ETA * gradient(w, HYPER, batch)
        q = ETA * seed(after)
        by_q = cross(w, q, batch)
        expected = {"l2": -by_q["l2"], "shift": 0.2 * HYPER["shift"] - by_q["shift"]}
        assert_close(found.hypergradient, expected, 1e-9)
        r = np.linalg.norm(seed(after) - product(q, HYPER, batch)) / np.linalg.norm(seed(after))
        size = np.sqrt(sum(np.sum(value**2) for value in by_q.values()))
        np.testing.assert_allclose(found.aux.stats["residual"], r, rtol=1e-8)
        error = 7 * size * np.sqrt(r) / (1 - np.sqrt(r))
        np.testing.assert_allclose(found.error, error, rtol=1e-6)
        np.testing.assert_allclose(found.aux.params, after)
        w, t = after, t + 2


def test_under_adam_it_is_the_last_step_as_adam_makes_it():
    problem = problem_of(STREAM, lambda hyper: rfho.optim.adam(0.1), horizon=8)
    exact = estimates(OnlineTruncatedHyperGradient(1, 2), problem, 3)
    for found, whole in zip(estimates(OneStepHyperGradient(2), problem, 3), exact, strict=True):
        assert_close(found.hypergradient, whole.hypergradient, 1e-8)
        np.testing.assert_allclose(found.value, whole.value)


def test_what_the_difference_leaves_falls_with_the_square_of_the_step():
    def bent(w, hyper, batch):
        return 0.5 * jnp.mean((jnp.tanh(batch[0] @ w) - hyper["scale"] * batch[1]) ** 2)

    def outer(w, hyper, batch):
        return 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2)

    dynamics = rfho.Descent(bent, lambda hyper: optax.sgd(0.5), START)
    problem = rfho.Problem(dynamics, outer, (X, Y), (X, Y), 3)
    hyper = {"scale": 0.7}
    exact = rfho.hyper_gradient(problem, hyper, OnlineTruncatedHyperGradient(1, 3)).hypergradient
    left = [
        rfho.hyper_gradient(problem, hyper, OneStepHyperGradient(3, step)).hypergradient["scale"]
        - exact["scale"]
        for step in (0.2, 0.1, 0.05)
    ]
    np.testing.assert_allclose([left[0] / left[1], left[1] / left[2]], 4, rtol=0.05)


def test_the_dynamic_barrier_is_the_algorithm_of_bome():
    rate, barrier = 0.05, 0.4
    w, t = START, 0
    method = DynamicBarrierHyperGradient(rate, every=3, barrier=barrier)
    for found in estimates(method, problem_of(STREAM), 8):
        z = w
        for batch in BATCHES[t : t + 3]:
            z = z - ETA * gradient(z, HYPER, batch)
        batch = BATCHES[t + 3]
        near, far = slope_by_hyper(w, HYPER, batch), slope_by_hyper(z, HYPER, batch)
        gap = np.concatenate([gradient(w, HYPER, batch), near["l2"] - far["l2"]])
        gap = np.append(gap, near["shift"] - far["shift"])
        objective = np.concatenate([seed(w), np.zeros(3), [0.2 * HYPER["shift"]]])
        multiplier = max((barrier * gap @ gap - objective @ gap) / (gap @ gap), 0)
        way = objective + multiplier * gap
        assert_close(found.hypergradient, {"l2": way[3:6], "shift": way[6]})
        np.testing.assert_allclose(found.aux.stats["multiplier"], multiplier, atol=1e-12)
        left = np.linalg.norm(way[:3]) / np.linalg.norm(objective[:3])
        np.testing.assert_allclose(found.aux.stats["residual"], left, atol=1e-12)
        np.testing.assert_allclose(found.aux.params, w)
        w, t = w - rate * way[:3], t + 4


def test_under_the_barrier_tuning_ends_where_the_hypergradient_is_zero():
    problem = problem_of((X, Y))
    rate = optax.exponential_decay(0.03, 1000, 0.6)
    tuner = rfho.Tuner(
        DynamicBarrierHyperGradient(rate, every=20), optax.sgd(rate), rfho.NonNegative()
    )

    def steps(state, count):
        return jax.lax.fori_loop(0, count, lambda _, at: tuner.step(problem, at)[0], state)

    tuned = jax.device_get(jax.jit(steps)(tuner.init(problem, HYPER), 10_000).hyper)
    free = tuned["l2"] > 0
    here, before = minimiser_hypergradient(tuned), minimiser_hypergradient(HYPER)
    slope, was = (np.hypot(np.linalg.norm(at["l2"][free]), at["shift"]) for at in (here, before))
    assert slope < 0.05 * was
    assert np.all(here["l2"][~free] > 0)


def test_layers_without_a_second_derivative_have_the_last_step_of_others():
    """∂L/∂l2 = |w|²/2 is quadratic, and its difference exact."""
    hyper = {"l2": 0.3}
    exact = rfho.hyper_gradient(through(jnp.tanh), hyper, OnlineTruncatedHyperGradient(1, 3))
    found = rfho.hyper_gradient(through(opaque), hyper, OneStepHyperGradient(3))
    assert_close(found.hypergradient, exact.hypergradient, 1e-9)


@pytest.mark.parametrize("method", [OneStepHyperGradient(), DynamicBarrierHyperGradient(0.1, 1)])
def test_what_only_the_optimiser_sees_is_refused(method):
    problem = problem_of(STREAM, lambda hyper: optax.sgd(hyper["lr"]))
    with pytest.raises(ValueError, match=r'hyper\["lr"\] reaches neither'):
        rfho.hyper_gradient(problem, HYPER | {"lr": 0.1}, method)
