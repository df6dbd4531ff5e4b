"""Newton's method as an inner solver: no rate, few steps, and no way up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfho
from rfho.dynamics import Newton

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)) * [1.0, 30.0, 0.01, 5.0], RNG.integers(0, 2, 30)


def badly_scaled(w, hyper, batch):
    x, y = batch
    margin = (2 * y - 1) * (x @ w)
    return jnp.mean(jnp.logaddexp(0, -margin)) + 0.5 * hyper * jnp.sum(w**2)


def test_a_few_steps_end_at_the_minimum_whatever_the_scales():
    dynamics = Newton(badly_scaled, jnp.zeros(4))
    problem = rfho.Problem(dynamics, badly_scaled, (X, Y), (X, Y), horizon=12)
    slope = jax.grad(badly_scaled)(rfho.train(problem, 1e-3).params, 1e-3, (X, Y))
    assert jnp.linalg.norm(slope) < 1e-10


def test_a_quadratic_takes_one_step_of_as_many_products_as_it_has_curvatures():
    curvature = jnp.array([1.0, 10.0, 1000.0])
    quadratic = lambda w, hyper, batch: 1e-9 * (0.5 * curvature @ w**2 - w.sum())  # noqa: E731
    dynamics = Newton(quadratic, jnp.zeros(3), products=3)
    after = dynamics.step(dynamics.init(None), None, None)
    np.testing.assert_allclose(after.params, 1 / curvature, rtol=1e-6)


def rippled(w, hyper, batch):
    return jnp.sum(jnp.sqrt(1 + w**2)) + 0.5 * jnp.sum(jnp.cos(3 * w))


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0, 2.0, 50.0])
def test_no_step_goes_up_where_the_loss_bends_downwards(start):
    dynamics = Newton(rippled, jnp.array([start, -start]))
    state = dynamics.init(None)
    for _ in range(6):
        after = dynamics.step(state, None, None)
        assert rippled(after.params, None, None) <= rippled(state.params, None, None) + 1e-12
        state = after


def test_a_step_without_a_finite_loss_is_halved_until_it_has_one():
    barrier = lambda w, hyper, batch: -jnp.log(w) + 1e-3 * w  # noqa: E731
    dynamics = Newton(barrier, jnp.array(1000.0 * 2.5))
    state = dynamics.init(None)
    for _ in range(20):
        state = dynamics.step(state, None, None)
    assert state.params == pytest.approx(1000.0)


def test_at_the_minimum_it_stays():
    dynamics = Newton(badly_scaled, jnp.zeros(4))
    state = dynamics.init(None)
    for _ in range(12):
        state = dynamics.step(state, 0.1, (X, Y))
    after = dynamics.step(state, 0.1, (X, Y))
    np.testing.assert_allclose(after.params, state.params, atol=1e-9)


def test_a_step_without_a_product_is_refused():
    with pytest.raises(ValueError, match="products=0"):
        Newton(badly_scaled, jnp.zeros(2), products=0)
