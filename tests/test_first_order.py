"""A penalty in place of second derivatives: the paper by hand, its bias in closed form, what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_single_loop import (
    BATCHES,
    ETA,
    FEATURES,
    HYPER,
    START,
    STREAM,
    VALID,
    X,
    Y,
    assert_close,
    error,
    estimates,
    gradient,
    loss,
    minimiser_hypergradient,
    problem_of,
    seed,
)

import rfho
from rfho import FirstOrderHyperGradient


def slope_by_hyper(w, hyper, batch):
    """∂_λL."""
    x, y = batch
    return {"l2": w**2 / 2, "shift": -np.mean(x @ w - y - hyper["shift"])}


def by_penalty(y, z, sigma, batch):
    """h_σ."""
    near, far = (slope_by_hyper(w, HYPER, batch) for w in (y, z))
    apart = {name: sigma * (near[name] - far[name]) for name in near}
    return apart | {"shift": apart["shift"] + 0.2 * HYPER["shift"]}


def norm(tree):
    return np.sqrt(sum(np.sum(value**2) for value in tree.values()))


def test_three_runs_and_the_difference_of_their_slopes_on_one_batch():
    sigma = 5.0
    method = FirstOrderHyperGradient(lambda k: sigma + k, every=2)
    z, full, half, t = START, START, START, 0
    for k, found in enumerate(estimates(method, problem_of(STREAM), 5)):
        penalty = sigma + k
        for batch in BATCHES[t : t + 2]:
            full = full - ETA * (gradient(full, HYPER, batch) + seed(full) / penalty)
            half = half - ETA * (gradient(half, HYPER, batch) + 2 * seed(half) / penalty)
            z = z - ETA * gradient(z, HYPER, batch)
        batch = BATCHES[t + 2]
        whole = by_penalty(full, z, penalty, batch)
        bias = {n: whole[n] - by_penalty(half, z, penalty / 2, batch)[n] for n in whole}
        expected = {n: whole[n] + bias[n] for n in whole}
        assert_close(found.hypergradient, expected)
        np.testing.assert_allclose(found.aux.stats["bias"], norm(bias))
        left = penalty * gradient(full, HYPER, batch) + seed(full)
        relative = np.linalg.norm(left) / np.linalg.norm(seed(full))
        np.testing.assert_allclose(found.aux.stats["residual"], relative)
        apart = penalty * (gradient(full, HYPER, batch) - gradient(z, HYPER, batch)) + seed(full)
        lag = np.linalg.norm(apart) / np.linalg.norm(seed(full))
        wrong = 1.5 * norm(bias) + 27 * lag * norm(expected)
        np.testing.assert_allclose(found.error, wrong)
        np.testing.assert_allclose(found.aux.stats["relative_error"], wrong / norm(expected))
        np.testing.assert_allclose(found.aux.params, z)
        t += 3


def test_the_declared_bias_is_that_of_the_paper_and_what_is_left_falls_with_its_square():
    exact = minimiser_hypergradient(HYPER)
    problem = problem_of((X, Y), lambda hyper: optax.sgd(0.4), horizon=600)
    left = []
    for sigma in (20.0, 40.0, 80.0):
        (found,) = estimates(FirstOrderHyperGradient(sigma, every=600), problem, 1)
        left.append(norm({n: found.hypergradient[n] - exact[n] for n in exact}))
        curvature = X.T @ X / len(X) + np.diag(HYPER["l2"])
        asked = curvature + VALID[0].T @ VALID[0] / len(VALID[1]) / sigma
        pulled = X.T @ (Y + HYPER["shift"]) / len(X) + VALID[0].T @ VALID[1] / len(VALID[1]) / sigma
        z = np.linalg.solve(curvature, X.T @ (Y + HYPER["shift"]) / len(X))
        plain = by_penalty(np.linalg.solve(asked, pulled), z, sigma, (X, Y))
        bias = norm({n: plain[n] - exact[n] for n in exact})
        assert 0.8 < found.aux.stats["bias"] / bias < 1.25
        assert left[-1] < 0.25 * bias
        assert found.aux.stats["residual"] < 1e-9
    assert 3.3 < left[0] / left[1] < 4.4
    assert 3.6 < left[1] / left[2] < 4.3


def test_on_minibatches_it_converges_to_the_hypergradient_of_all_the_data():
    problem = problem_of(STREAM, lambda hyper: optax.sgd(lambda t: 3 / (20 + t)))
    method = FirstOrderHyperGradient(100.0, every=1)
    hyper = jax.tree.map(jnp.asarray, HYPER)

    @jax.jit
    def run():
        def one(carry, k):
            found, carry = method.estimate(problem.at(k), hyper, carry)
            return carry, found.hypergradient

        return jax.lax.scan(one, method.init(problem, hyper), jnp.arange(8_000))[1]

    history, exact = run(), minimiser_hypergradient(HYPER)
    gap = norm({n: np.mean(history[n][4000:], 0) - exact[n] for n in exact})
    assert gap / norm(exact) < 0.02


@jax.custom_vjp
def opaque(x):
    """tanh, as a layer outside of JAX has it: with a first derivative and none beyond it."""
    return on_host(np.tanh, x)


def on_host(function, *arguments):
    like = jax.ShapeDtypeStruct(arguments[0].shape, arguments[0].dtype)
    return jax.pure_callback(function, like, *arguments, vmap_method="expand_dims")


opaque.defvjp(
    lambda x: (opaque(x), x),
    lambda x, g: (on_host(lambda x, g: g / np.cosh(x) ** 2, x, g),),
)


def through(layer):
    def inner(w, hyper, batch):
        residual = layer(batch[0] @ w) - batch[1]
        return 0.5 * jnp.mean(residual**2) + 0.5 * hyper["l2"] * jnp.sum(w**2)

    def outer(w, hyper, batch):
        return 0.5 * jnp.mean((layer(batch[0] @ w) - batch[1]) ** 2)

    dynamics = rfho.Descent(inner, lambda hyper: optax.sgd(0.5), jnp.zeros(FEATURES))
    return rfho.Problem(dynamics, outer, (X, np.tanh(Y)), (VALID[0], np.tanh(VALID[1])), 300)


def test_layers_without_a_second_derivative_are_tuned():
    hyper = {"l2": 0.3}
    method = FirstOrderHyperGradient(1e3, every=300)
    found = rfho.hyper_gradient(through(opaque), hyper, method).hypergradient["l2"]
    exact = rfho.hyper_gradient(through(jnp.tanh), hyper).hypergradient["l2"]
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    with pytest.raises((NotImplementedError, TypeError, ValueError)):
        rfho.hyper_gradient(through(opaque), hyper)
    tuned = rfho.tune(through(opaque), hyper, method=method, optim=optax.sgd(0.1), steps=2)
    assert tuned.hyper["l2"] != 0.3


def test_over_tasks_every_task_has_runs_of_its_own():
    one = problem_of(None, lambda hyper: optax.sgd(0.4), horizon=400)
    train = X.reshape(4, 10, FEATURES), Y.reshape(4, 10)
    valid = tuple(np.stack([part] * 4) for part in VALID)
    many = rfho.over_tasks(one, (train, valid))
    method = FirstOrderHyperGradient(1e4, every=400)
    found = rfho.hyper_gradient(many, HYPER, method).hypergradient
    assert_close(found, rfho.hyper_gradient(many, HYPER).hypergradient, 1e-5)


def descent(loss=loss, optim=lambda hyper: optax.sgd(0.1), init=START, **options):
    return rfho.Problem(rfho.Descent(loss, optim, init, **options), error, (X, Y), VALID, 5)


def counting(w, hyper, batch):
    return loss(w.params, hyper, batch), w.carried + 1


REFUSED = {
    "a rate": (
        descent(optim=lambda hyper: optax.sgd(hyper["lr"])),
        ValueError,
        r'hyper\["lr"\] reaches neither the loss nor the objective',
    ),
    "no loss": (
        rfho.Problem(
            rfho.Dynamics(lambda h: START, lambda s, h, b: s * h["lr"]), error, None, VALID, 5
        ),
        TypeError,
        "describe training as a rfho.Descent",
    ),
    "carried arrays": (
        descent(counting, init=rfho.Variables(START, jnp.zeros(())), has_aux=True),
        TypeError,
        "rfho.Variables",
    ),
    "weights made of slots": (
        descent(
            optim=lambda hyper: optax.sgd(0.1, momentum=0.9),
            output=lambda w, slots: w - slots[0].trace,
        ),
        TypeError,
        "leave output out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_penalty_cannot_mean_is_refused(name):
    problem, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        eqx.filter_jit(FirstOrderHyperGradient(10.0, 1).init)(
            problem, HYPER | {"lr": np.array(0.1)}
        )
