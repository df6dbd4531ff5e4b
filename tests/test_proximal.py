"""Proximal descent ends where other programs do, and its implicit derivative is that of the support."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import lsq_linear
from sklearn.linear_model import ElasticNet, Lasso

import rfho
from rfho.dynamics import (
    Proximal,
    elastic_net,
    group_lasso,
    lasso,
    left_out,
    within,
    working_set,
)
from rfho.hyper_gradients import OnSupport
from rfho.solvers import GMRES

RNG = np.random.default_rng(0)
N, D = 20, 8
X = RNG.normal(size=(N, D))
TRUTH = np.array([2.0, -1.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
Y = X @ TRUTH + 0.3 * RNG.normal(size=N)
VALID = RNG.normal(size=(10, D)), RNG.normal(size=10)
RATE = float(N / np.linalg.norm(X, 2) ** 2)
GROUPS = jnp.array([0, 0, 1, 1, 2, 2, 3, 3])
METHOD = rfho.ImplicitHyperGradient(
    GMRES(), condition=OnSupport(), tolerance=1e-12, warm_start=False
)


def squares(w, hyper, batch):
    return 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2)


def own(hyper):
    return hyper["own"]


def common(hyper):
    return hyper["common"]


KINDS = {
    "lasso": (lasso(common), {"common": 0.2}),
    "a weight for each": (lasso(own), {"own": np.linspace(0.1, 0.4, D)}),
    "elastic net": (elastic_net(common, own), {"common": 0.2, "own": np.asarray(0.3)}),
    "group lasso": (group_lasso(own, GROUPS), {"own": np.linspace(0.2, 0.5, 4)}),
    "box": (within(own, common), {"own": np.asarray(-0.5), "common": 0.8}),
}


def problem_of(prox, horizon=600):
    dynamics = Proximal(squares, prox, RATE, init=jnp.zeros(D))
    return rfho.Problem(dynamics, squares, (X, Y), VALID, horizon)


def solved(kind):
    prox, hyper = KINDS[kind]
    return rfho.hyper_gradient(problem_of(prox), hyper, METHOD)


def test_the_solutions_are_those_of_other_programs():
    w = {kind: np.asarray(solved(kind).aux.params) for kind in ("lasso", "elastic net", "box")}
    exact = {"fit_intercept": False, "tol": 1e-14, "max_iter": 100_000}
    np.testing.assert_allclose(w["lasso"], Lasso(0.2, **exact).fit(X, Y).coef_, atol=1e-7)
    assert 0 < np.sum(w["lasso"] == 0) < D
    net = ElasticNet(0.5, l1_ratio=0.4, **exact).fit(X, Y).coef_
    np.testing.assert_allclose(w["elastic net"], net, atol=1e-7)
    bounded = lsq_linear(X, Y, (-0.5, 0.8), tol=1e-14).x
    np.testing.assert_allclose(w["box"], bounded, atol=1e-6)


def test_the_derivative_of_the_lasso_is_its_closed_form():
    estimate = solved("lasso")
    w = np.asarray(estimate.aux.params)
    on = w != 0
    moved = np.zeros(D)
    moved[on] = -np.linalg.solve(X[:, on].T @ X[:, on] / N, np.sign(w[on]))
    slope = VALID[0].T @ (VALID[0] @ w - VALID[1]) / len(VALID[1])
    np.testing.assert_allclose(estimate.hypergradient["common"], slope @ moved, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_retraining(kind):
    prox, hyper = KINDS[kind]
    problem = problem_of(prox)
    estimate = solved(kind)
    hyper = jax.tree.map(jnp.asarray, hyper)

    @jax.jit
    def value(hyper):
        step = lambda t, state: problem.dynamics.step(state, hyper, (X, Y))  # noqa: E731
        state = jax.lax.fori_loop(0, 600, step, problem.dynamics.init(hyper))
        return squares(state.params, hyper, VALID)

    for name, leaf in hyper.items():
        for index in np.ndindex(np.shape(leaf)):
            ends = [value(hyper | {name: leaf.at[index].add(h)}) for h in (-1e-5, 1e-5)]
            expected = (ends[1] - ends[0]) / 2e-5
            np.testing.assert_allclose(
                np.asarray(estimate.hypergradient[name])[index], expected, atol=1e-6
            )
    assert estimate.aux.stats["relative_error"] < 1e-6


def test_a_penalty_is_tuned():
    method = rfho.ImplicitHyperGradient(GMRES(), condition=OnSupport())
    solution = rfho.tune(
        problem_of(lasso(common), horizon=50),
        {"common": 0.5},
        method=method,
        domain=rfho.Positive(),
        steps=20,
    )
    assert solution.best.value < solution.history[0].value


def test_only_proximal_descent_has_a_support():
    dynamics = rfho.Descent(squares, lambda h: optax.sgd(h["common"]), jnp.zeros(D))
    problem = rfho.Problem(dynamics, squares, (X, Y), VALID, 5)
    with pytest.raises(TypeError, match="proximal descent"):
        rfho.hyper_gradient(problem, {"common": 0.2}, METHOD)
    with pytest.raises(ValueError, match="positive number"):
        Proximal(squares, lasso(common), 0.0, init=jnp.zeros(D))


def test_a_working_set_that_leaves_nothing_out_has_the_solution_of_all_features():
    x = np.random.default_rng(1).normal(size=(15, 60))
    y, weight = x[:, :3].sum(axis=1), np.linspace(0.1, 0.3, 60)
    w, seen = np.zeros(60), []
    for _ in range(6):
        slope = x.T @ (x @ w - y) / 15
        rows = working_set(slope / weight, 8)
        w = np.zeros(60)
        # With a weight for each feature: scikit-learn's Lasso of scaled features.
        scaled = Lasso(1.0, fit_intercept=False, tol=1e-12).fit(x[:, rows] / weight[rows], y)
        w[rows] = scaled.coef_ / weight[rows]
        seen.append(left_out(x.T @ (x @ w - y) / 15, rows, weight))
        if seen[-1] <= 1:
            break
    assert seen[0] > 1 >= seen[-1]
    whole = Lasso(1.0, fit_intercept=False, tol=1e-12).fit(x / weight, y).coef_ / weight
    np.testing.assert_allclose(w, whole, atol=1e-8)


def test_each_problem_has_a_working_set_of_its_own():
    slope = np.array([[0.1, -3.0, 2.0, 0.5], [4.0, 1.0, -1.5, 0.0]])
    rows = working_set(slope, 2)
    assert [sorted(row) for row in rows.tolist()] == [[1, 2], [0, 2]]
    assert left_out(slope, rows, 1.0) == 1.0
    assert left_out(slope, rows, np.array([1.0, 0.5, 1.0, 1.0])) == 2.0
    assert left_out(slope, working_set(slope, 4), 1.0) == 0
    with pytest.raises(ValueError, match="there are 4 features"):
        working_set(slope, 5)
