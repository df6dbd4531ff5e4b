"""Warm restarts: each training run starts where the last one ended."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
    WarmRestartHyperGradient,
)

HYPER = {"lr": jnp.asarray(0.1), "l2": jnp.asarray(0.3)}
DATA = jnp.sin(jnp.arange(12.0)).reshape(12, 1)


def square(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def penalised(w, hyper, batch):
    return square(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2)


def optim(hyper):
    return optax.sgd(hyper["lr"], momentum=0.9)


def problem_of(init=None, horizon=3):
    init = jnp.ones(2) if init is None else init
    dynamics = rfho.Descent(penalised, optim, init)
    return rfho.Problem(dynamics, square, rfho.Stream(DATA, 4, key=0), jnp.ones(2), horizon)


PROBLEM = problem_of()


def runs(method, count, hyper=HYPER):
    step = jax.jit(lambda carry: method.estimate(PROBLEM, hyper, carry))
    carry, found = method.init(PROBLEM, hyper), []
    for _ in range(count):
        estimate, carry = step(carry)
        found.append(estimate)
    return found, carry


def test_runs_follow_each_other_as_one_long_training_run():
    found, carry = runs(WarmRestartHyperGradient(ReverseHyperGradient()), 3)
    long = problem_of(horizon=9)
    value, params = ReverseHyperGradient().conclude(long, HYPER, None)
    np.testing.assert_allclose(found[-1].aux.params, params, rtol=1e-12)
    np.testing.assert_allclose(found[-1].value, value, rtol=1e-12)
    assert int(carry.t) == 9


@pytest.mark.parametrize("method", [ReverseHyperGradient(), ForwardHyperGradient()])
def test_the_hypergradient_takes_the_start_of_its_run_as_given(method):
    found, _ = runs(WarmRestartHyperGradient(method), 2)
    dynamics = PROBLEM.dynamics
    state = dynamics.init(HYPER)
    for t in range(3):
        state = dynamics.step(state, HYPER, PROBLEM.train_batch(t))

    def second_run(hyper):
        end = state
        for t in range(3, 6):
            end = dynamics.step(end, hyper, PROBLEM.train_batch(t))
        return square(end.params, hyper, PROBLEM.valid)

    expected = jax.grad(second_run)(HYPER)
    for name in HYPER:
        np.testing.assert_allclose(found[1].hypergradient[name], expected[name], rtol=1e-11)


def test_it_tunes_with_horizons_too_short_for_training():
    def toward_two(w, hyper, batch):
        return jnp.sum((w - 2) ** 2)

    def ridge(w, hyper, batch):
        return jnp.sum((w - 4) ** 2) + hyper * jnp.sum(w**2)  # solved by 4 / (1 + λ)

    dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.1), jnp.zeros(2))
    problem = rfho.Problem(dynamics, toward_two, None, None, horizon=3)
    solution = rfho.tune(
        problem,
        0.2,
        method=WarmRestartHyperGradient(ReverseHyperGradient()),
        optim=optax.sgd(0.05),
        steps=150,
    )
    assert float(solution.hyper) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(solution.params, 2.0, atol=1e-3)


def test_objectives_may_have_their_own_data():
    own = rfho.Objective(square, jnp.zeros(2))
    problem = rfho.Problem(
        PROBLEM.dynamics, {"lr": own, "l2": square}, PROBLEM.train, jnp.ones(2), horizon=3
    )
    method = WarmRestartHyperGradient(ReverseHyperGradient())
    warm, _ = method.estimate(problem, HYPER, method.init(problem, HYPER))
    cold, _ = ReverseHyperGradient().estimate(problem, HYPER, None)
    for name in HYPER:
        np.testing.assert_allclose(warm.hypergradient[name], cold.hypergradient[name], rtol=1e-12)


def test_online_methods_never_restart():
    with pytest.raises(TypeError, match="is not one training run that could begin anywhere"):
        WarmRestartHyperGradient(RealTimeHyperGradient(every=1)).init(PROBLEM, HYPER)
