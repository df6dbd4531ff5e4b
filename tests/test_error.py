"""What estimates say of their own error, and outer steps that heed it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.solvers import CG

HORIZON, DRAWS = 40, 100


def loss(w, hyper, batch):
    x, y = batch
    hidden = jnp.tanh(x @ w["a"])
    return jnp.mean((hidden @ w["b"] - y) ** 2) + jnp.sum(hyper["l2"] * w["a"] ** 2)


def plain(w, hyper, batch):
    return loss(w, {"l2": 0.0}, batch)


def problem_of(key, dtype, horizon=HORIZON):
    keys = jax.random.split(key, 6)
    draw = lambda i, *shape: jax.random.normal(keys[i], shape, jnp.float32).astype(dtype)  # noqa: E731
    init = {"a": draw(0, 3, 4) / 2, "b": draw(1, 4) / 2}
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"], momentum=0.5), init)
    train, valid = (draw(2, 20, 3), draw(3, 20)), (draw(4, 20, 3), draw(5, 20))
    hyper = {"lr": jnp.asarray(0.05, dtype), "l2": jnp.full(4, 0.02, dtype)}
    return rfho.Problem(dynamics, plain, train, valid, horizon), hyper


@eqx.filter_jit
def estimates(method_of, keys, dtype):
    def one(key):
        problem, hyper = problem_of(key, dtype)
        moment, method = problem.at(0), method_of(key)
        estimate, _ = method.estimate(moment, hyper, method.init(moment, hyper))
        return estimate.hypergradient, estimate.error

    return jax.vmap(one)(keys)


def reverse(key):
    return rfho.ReverseHyperGradient()


def forward(key):
    return rfho.ForwardHyperGradient()


def along_two(key):
    return rfho.RandomForwardHyperGradient(2, key)


def gaps(left, right):
    """‖ĝ - ∇f‖ of each draw."""
    squares = jax.tree.map(
        lambda a, b: np.sum((np.asarray(a, float) - np.asarray(b)).reshape(DRAWS, -1) ** 2, axis=1),
        left,
        right,
    )
    return np.sqrt(sum(jax.tree.leaves(squares)))


def sizes(tree):
    return gaps(tree, jax.tree.map(np.zeros_like, tree))


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), DRAWS)


@pytest.fixture(scope="module")
def truth(keys):
    return estimates(reverse, keys, jnp.float64)[0]


@pytest.mark.parametrize("method_of", [reverse, forward])
def test_rounding_is_below_what_exact_methods_say(method_of, keys, truth):
    found, error = estimates(method_of, keys, jnp.float32)
    assert np.all(gaps(found, truth) <= error)
    assert np.median(error / sizes(truth)) < 1e-3


def test_the_scatter_of_random_directions_is_what_they_say(keys, truth):
    found, error = estimates(along_two, keys, jnp.float64)
    apart, said = gaps(found, truth) / sizes(truth), error / sizes(truth)
    np.testing.assert_allclose(np.mean(apart**2), np.mean(said**2), rtol=0.2)


def test_what_a_window_leaves_out_is_what_it_says_near_a_minimum():
    dynamics = rfho.Descent(
        lambda w, hyper, batch: 0.5 * (w - 1) ** 2 + 0.5 * hyper * w**2,
        lambda hyper: optax.sgd(0.25),
        jnp.zeros(()),
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, horizon=60)
    found = rfho.hyper_gradient(problem, 1.0, rfho.TruncatedHyperGradient(5))
    assert 0.5**5 / 4 < found.error < 10 * 0.5**5 / 4
    np.testing.assert_allclose(found.hypergradient, -(1 - 0.5**5) / 4, rtol=1e-6)
    whole = rfho.hyper_gradient(problem, 1.0, rfho.TruncatedHyperGradient(60))
    assert whole.error < 1e-12


def test_a_method_that_says_nothing_has_no_error(keys):
    problem, hyper = problem_of(keys[0], jnp.float64)
    method = rfho.ImplicitHyperGradient(CG(), audit=None)
    hyper = {"l2": hyper["l2"], "lr": hyper["lr"]}
    domain = {"l2": rfho.Reals(), "lr": rfho.Fixed()}
    assert rfho.hyper_gradient(problem, hyper, method, domain=domain, throw=False).error is None
    with pytest.raises(TypeError, match="says nothing about its error"):
        rfho.tune(problem, hyper, method=method, domain=domain, trust=1.0, steps=2)


def test_only_coordinates_whose_sign_is_certain_move():
    """Three directions of four: what is large moves, what may be noise waits."""
    size = jnp.array([10.0, 1e-3, 1e-3, 1e-3])
    dynamics = rfho.Dynamics(lambda hyper: jnp.zeros(()), lambda s, h, b: size @ h)
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, horizon=1)
    method = rfho.RandomForwardHyperGradient(3, key=1)
    hyper = jnp.ones(4)
    options = {"method": method, "optim": optax.sgd(0.01), "steps": 1}
    free = np.asarray(rfho.tune(problem, hyper, **options).hyper)
    held = np.asarray(rfho.tune(problem, hyper, trust=1.0, **options).hyper)
    estimate = rfho.hyper_gradient(problem, hyper, method)
    certain = np.abs(np.asarray(estimate.hypergradient)) > estimate.error
    assert certain[0]
    assert not certain.all()
    np.testing.assert_array_equal(held, np.where(certain, free, 1.0))


def test_trust_is_a_positive_number():
    with pytest.raises(ValueError, match="trust=0"):
        rfho.optim.certain(optax.sgd(0.1), 0.0)


@pytest.mark.parametrize("trust", [None, 1.0])
def test_optimisers_that_search_along_a_line_do_not_mind(trust):
    """They hand on to the objective whatever they are given beside the gradient."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: (w - 1) ** 2 + hyper * w**2,
        lambda hyper: optax.sgd(0.1),
        jnp.zeros(()),
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 0.7) ** 2, horizon=30)
    solution = rfho.tune(problem, 0.1, optim=optax.lbfgs(), steps=4, trust=trust)
    assert solution.value < 1e-4
