"""The bias curve: what every window leaves out, from one sweep."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import learned_start, nesterov_network, own_objectives

import rfho
from rfho.checks import bias_curve


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected
    )


@pytest.mark.parametrize(
    ("draw", "policy"),
    [
        (nesterov_network, rfho.StoreAll()),
        (learned_start, rfho.Binomial(2)),
        (own_objectives, rfho.Recompute()),
    ],
)
def test_every_point_is_the_truncated_hypergradient_of_its_window(draw, policy):
    problem, hyper = draw(np.random.default_rng(3))
    curve = bias_curve(problem, hyper, checkpoint=policy)
    np.testing.assert_array_equal(curve.windows, np.arange(1, problem.horizon + 1))
    for window in (1, 2, problem.horizon):
        method = rfho.TruncatedHyperGradient(window)
        expected = rfho.hyper_gradient(problem, hyper, method).hypergradient
        found = jax.tree.map(lambda leaf, i=window - 1: leaf[i], curve.hypergradients)
        assert_close(found, expected)
    assert_close(curve.exact, rfho.hyper_gradient(problem, hyper).hypergradient)
    assert curve.bias[-1] == 0
    np.testing.assert_allclose(curve.cosine[-1], 1)


def test_at_a_stationary_point_the_bias_falls_by_the_contraction_of_a_step():
    """Shaban et al.: (1 - η α)^K of it is left."""
    curvature = np.array([0.5, 2.0])

    def loss(w, hyper, batch):
        return 0.5 * jnp.sum(curvature * w**2) - hyper @ w

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.2), jnp.zeros(2))
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w[0] + w[1], horizon=400)
    curve = bias_curve(problem, jnp.array([1.0, 2.0]), windows=[1, 5, 20, 40])
    left = (1 - 0.2 * curvature) ** curve.windows[:, None] / curvature
    expected = np.linalg.norm(left, axis=1) / np.linalg.norm(1 / curvature)
    np.testing.assert_allclose(curve.bias, expected, rtol=1e-9)
    assert curve.window(0.2) == 20
    assert curve.method(0.2) == rfho.TruncatedHyperGradient(20)
    with pytest.raises(ValueError, match="the largest window, 40, has a bias of"):
        curve.window(0.01)


def test_a_bias_that_rises_again_is_not_taken_for_a_small_one():
    """Momentum swings: the first small bias is passed by chance."""

    def loss(w, hyper, batch):
        return 0.5 * w**2 - hyper * w

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.5, momentum=0.95), jnp.zeros(()))
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, horizon=800)
    curve = bias_curve(problem, 1.0)
    by_chance = int(curve.windows[np.argmax(curve.bias <= 0.2)])
    window = curve.window(0.2)
    assert by_chance < 10 < window
    assert np.all(curve.bias[window - 1 :] <= 0.2)
    assert curve.bias[window - 2] > 0.2


def test_leaves_have_a_bias_of_their_own_and_fixed_ones_none():
    problem, hyper = own_objectives(np.random.default_rng(0))
    curve = bias_curve(problem, hyper, domain={"lr": rfho.Fixed(), "l2": rfho.Reals()})
    assert list(curve.by_leaf) == ['hyper["l2"]']
    assert curve.exact["lr"] is None
    np.testing.assert_allclose(curve.by_leaf['hyper["l2"]'], curve.bias)
    assert "window" in str(curve)
    assert str(problem.horizon) in str(curve)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("windows", [[], [0], [8], [1.5]])
def test_a_window_that_is_none_is_refused(windows):
    problem, hyper = own_objectives(np.random.default_rng(0))
    with pytest.raises(ValueError, match="bias_curve got windows"):
        bias_curve(problem, hyper, windows=windows)


def test_a_window_of_its_own_keeps_to_the_bias_and_says_it():
    curvature = np.array([0.5, 2.0])

    def loss(w, hyper, batch):
        return 0.5 * jnp.sum(curvature * w**2) - hyper @ w

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.2), jnp.zeros(2))
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w**2), horizon=410)
    hyper = jnp.array([1.0, 2.0])
    exact = rfho.hyper_gradient(problem, hyper).hypergradient
    found = rfho.hyper_gradient(problem, hyper, rfho.TruncatedHyperGradient("auto", bias=1e-3))
    window = int(found.aux.stats["window"])
    assert 60 < window < 120
    fixed = rfho.hyper_gradient(problem, hyper, rfho.TruncatedHyperGradient(window))
    assert_close(found.hypergradient, fixed.hypergradient)
    wrong = jnp.linalg.norm(found.hypergradient - exact)
    assert wrong <= 1e-3 * jnp.linalg.norm(exact)
    assert wrong < found.aux.stats["error"] < 10 * wrong
    with pytest.raises(ValueError, match="bias=0"):
        rfho.TruncatedHyperGradient("auto", bias=0.0)


def test_a_window_of_its_own_goes_back_to_the_start_where_nothing_is_small():
    problem, hyper = learned_start(np.random.default_rng(3))
    method = rfho.TruncatedHyperGradient("auto")
    found = rfho.hyper_gradient(problem, hyper, method)
    assert_close(found.hypergradient, rfho.hyper_gradient(problem, hyper).hypergradient)
    assert found.aux.stats["window"] == problem.horizon
    assert found.aux.stats["error"] == 0
