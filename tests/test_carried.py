"""Layers that keep something between their calls: `Variables`, whose carried arrays the loss hands on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sampled import sampled

import rfho
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    ImplicitHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
)

Keep = rfho.Keep
N, IN, WIDTH, OUT = 24, 5, 6, 3
RNG = np.random.default_rng(0)
X, LABELS = jnp.asarray(RNG.normal(size=(N, IN))), jnp.asarray(RNG.integers(OUT, size=N))
HYPER = {"lr": jnp.array(0.05), "l2": jnp.array(1e-2), "weights": jnp.linspace(-1, 1, N)}
TRAIN = rfho.Keyed(rfho.Stream((X, LABELS, jnp.arange(N)), size=8, key=0), key=1)
HORIZON = 4


def start(hyper):
    """A network with a learned first layer, running statistics, a count of steps and a key of its own."""
    params = {
        "a": jnp.asarray(np.random.default_rng(1).normal(size=(IN, WIDTH))) * (1 + hyper["l2"]),
        "b": jnp.asarray(np.random.default_rng(2).normal(size=(WIDTH, OUT))) / 2,
    }
    statistics = {"mean": jnp.zeros(WIDTH), "var": jnp.ones(WIDTH) * (1 + hyper["lr"])}
    return params, {**statistics, "seen": jnp.array(0), "key": jax.random.key(5)}


def logits(params, carried, x, key):
    """Batch normalisation, in evaluation by the running statistics, and dropout by two keys."""
    h = x @ params["a"]
    if key is None:
        mean, var = carried["mean"], carried["var"]
        after = carried
    else:
        mean, var = h.mean(0), h.var(0)
        own, further = jax.random.split(carried["key"])
        mix = lambda old, new: 0.8 * old + 0.2 * new  # noqa: E731
        after = {
            "mean": mix(carried["mean"], mean),
            "var": mix(carried["var"], var),
            "seen": carried["seen"] + len(x),
            "key": further,
        }
    h = jnp.tanh((h - mean) * jax.lax.rsqrt(var + 1e-3))
    if key is not None:
        h = h * jax.random.bernoulli(key, 0.8, h.shape) * (1 + jax.random.normal(own, h.shape) / 9)
    return h @ params["b"], after


def entropy(out, labels):
    return optax.softmax_cross_entropy_with_integer_labels(out, labels)


def loss(variables, hyper, batch):
    params, carried = variables
    (x, labels, index), key = batch
    out, after = logits(params, carried, x, key)
    weights = jax.nn.sigmoid(hyper["weights"])[index] / (1 + carried["seen"] / 100)
    decay = hyper["l2"] * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    drift = jnp.mean((carried["mean"] - out.mean()) ** 2)  # the loss sees what is carried
    return jnp.mean(weights * entropy(out, labels)) + decay + 0.1 * drift, after


def objective(variables, hyper, batch):
    params, carried = variables
    return jnp.mean(entropy(logits(params, carried, X, None)[0], LABELS))


def optim(hyper):
    return optax.sgd(hyper["lr"], momentum=0.9, nesterov=True)


def described(loss=loss, objective=objective, **options):
    dynamics = rfho.Descent(
        loss, optim, lambda hyper: rfho.Variables(*start(hyper)), has_aux=True, **options
    )
    return rfho.Problem(dynamics, objective, train=TRAIN, valid=None, horizon=HORIZON)


class State(NamedTuple):
    params: dict
    carried: dict
    slots: optax.OptState


def by_hand(gradient):
    """The same training, written down step by step."""

    def init(hyper):
        params, carried = start(hyper)
        return State(params, carried, optim(hyper).init(params))

    def step(state, hyper, batch):
        f = lambda w: loss((w, state.carried), hyper, batch)  # noqa: E731
        g, carried = gradient(f, has_aux=True)(state.params)
        updates, slots = optim(hyper).update(g, state.slots, state.params)
        return State(optax.apply_updates(state.params, updates), carried, slots)

    dynamics = rfho.Dynamics(init, step, output=lambda state: (state.params, state.carried))
    return rfho.Problem(dynamics, objective, train=TRAIN, valid=None, horizon=HORIZON)


def close(found, expected, rtol=1e-12):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-15)


@pytest.fixture(scope="module")
def expected():
    """By `jax.grad` inside and out, differentiated in reverse through the loop."""

    def f(hyper):
        problem = by_hand(jax.grad)
        state = problem.init(hyper)
        for t in range(HORIZON):
            state = problem.step(state, hyper, t)
        return objective((state.params, state.carried), hyper, None)

    return jax.jit(jax.value_and_grad(f))(HYPER)


METHODS = {
    **{f"reverse, {keep.value}": ReverseHyperGradient(rfho.StoreAll(keep)) for keep in Keep},
    "replay": ReverseHyperGradient(rfho.Replay(2)),
    "forward": ForwardHyperGradient(),
}


@pytest.mark.parametrize("name", sampled(METHODS, every=3))
def test_every_method_gives_what_jax_gives_through_the_loop(name, expected):
    found = rfho.hyper_gradient(described(), HYPER, METHODS[name])
    close((found.value, found.hypergradient), expected)


@pytest.mark.parametrize("gradient", [jax.grad, rfho.grad], ids=["jax.grad", "rfho.grad"])
def test_steps_written_by_hand_give_the_same(gradient, expected):
    found = rfho.hyper_gradient(by_hand(gradient), HYPER)
    close((found.value, found.hypergradient), expected)


def test_the_hypergradient_is_that_of_finite_differences():
    assert rfho.check_hyper_gradient(described(), HYPER, directions=1).agrees


def test_objectives_see_params_and_what_is_carried():
    params = rfho.hyper_gradient(described(), HYPER).aux.params
    assert isinstance(params, rfho.Variables)
    assert int(params.carried["seen"]) == HORIZON * 8


def test_training_goes_on_in_real_time():
    problem = described()
    tuner = rfho.Tuner(RealTimeHyperGradient(3), optax.sgd(1e-3))
    state = tuner.init(problem, HYPER)
    for _ in range(2):
        state, estimate = tuner.step(problem, state)
    assert int(estimate.aux.params.carried["seen"]) == 6 * 8


def test_many_tasks_have_their_own_statistics():
    data = tuple(jnp.stack([leaf, leaf[::-1]]) for leaf in (X, LABELS, jnp.arange(N)))
    keys = jax.random.split(jax.random.key(0), 2)
    train = jax.vmap(lambda data, key: rfho.Keyed(rfho.Stream(data, 8, key), key))(data, keys)
    many = rfho.over_tasks(described(), (train, jnp.zeros((2, 1))))
    estimate = rfho.hyper_gradient(many, HYPER)
    means = estimate.aux.params.carried["mean"]
    assert not np.allclose(means[0], means[1])
    forward = rfho.hyper_gradient(many, HYPER, ForwardHyperGradient())
    close(estimate.hypergradient, forward.hypergradient, rtol=1e-10)


def test_averages_of_the_trained_weights_go_with_what_is_carried():
    free = lambda hyper: optax.contrib.schedule_free_sgd(hyper["lr"])  # noqa: E731

    def output(variables, slots):
        params = optax.contrib.schedule_free_eval_params(slots, variables.params)
        return variables._replace(params=params)

    init = lambda hyper: rfho.Variables(*start(hyper))  # noqa: E731
    dynamics = rfho.Descent(loss, free, init, has_aux=True, output=output)
    problem = rfho.Problem(dynamics, objective, train=TRAIN, valid=None, horizon=HORIZON)
    reverse = rfho.hyper_gradient(problem, HYPER).hypergradient
    close(reverse, rfho.hyper_gradient(problem, HYPER, ForwardHyperGradient()).hypergradient, 1e-10)


@pytest.mark.parametrize("keep", list(Keep))
def test_what_has_an_infinite_derivative_spoils_no_gradient(keep):
    def with_root(variables, hyper, batch):
        (w, carried) = variables
        return (w - hyper) ** 2, {"root": jnp.sqrt(0 * w), "w": carried["w"] + w}

    init = rfho.Variables(jnp.array(1.0), {"root": jnp.array(0.0), "w": jnp.array(0.0)})
    dynamics = rfho.Descent(with_root, lambda hyper: optax.sgd(0.1), init, has_aux=True)
    state = dynamics.init(jnp.array(3.0))
    after, _ = dynamics.way(keep).remember(state, jnp.array(3.0), None)
    np.testing.assert_allclose(after.params.params, 1.4)


def test_metrics_are_left_out_of_training():
    def plain(w, hyper, batch):
        return jnp.mean((X @ w) ** 2) + hyper["l2"] * jnp.sum(w**2)

    def with_metrics(w, hyper, batch):
        value = plain(w, hyper, batch)
        return value, {"norm": jnp.linalg.norm(w), "name": "a word", "wrong": jnp.sum(X @ w > 0)}

    def estimate(loss, **options):
        dynamics = rfho.Descent(loss, lambda h: optax.sgd(h["lr"]), jnp.ones(IN), **options)
        score = lambda w, hyper, batch: jnp.sum(w**4)  # noqa: E731
        problem = rfho.Problem(dynamics, score, train=None, valid=None, horizon=4)
        return rfho.hyper_gradient(problem, {"lr": 0.1, "l2": 0.1})

    plain, metrics = estimate(plain), estimate(with_metrics, has_aux=True)
    close(metrics.hypergradient, plain.hypergradient)


REFUSED = {
    "no aux": (
        lambda v, h, b: jnp.sum(v.params**2),
        False,
        r"let it return \(scalar, carried\) and pass has_aux=True",
    ),
    "a missing array": (
        lambda v, h, b: (jnp.sum(v.params**2), {"mean": v.carried["mean"]}),
        True,
        "return all of them, changed or not",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_carried_must_come_back(name):
    loss, has_aux, words = REFUSED[name]
    init = rfho.Variables(jnp.ones(2), {"mean": jnp.zeros(2), "count": jnp.array(0)})
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), init, has_aux=has_aux)
    with pytest.raises(TypeError, match=words):
        dynamics.step(dynamics.init(HYPER), HYPER, None)


def test_a_condition_on_parameters_alone_is_refused():
    batch = TRAIN(0)
    problem = rfho.Problem(described().dynamics, objective, batch, None, HORIZON)
    with pytest.raises(TypeError, match=r"use the condition rfho\.FixedPoint"):
        rfho.hyper_gradient(problem, HYPER, ImplicitHyperGradient())
