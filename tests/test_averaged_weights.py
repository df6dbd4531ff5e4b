"""Objectives see the weights that an optimiser means to be seen: `Descent(..., output=...)`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import ForwardHyperGradient, ImplicitHyperGradient, ReverseHyperGradient

X = jnp.asarray(np.random.default_rng(0).normal(size=(30, 4)))
Y = jnp.sin(X @ jnp.arange(4.0))
HORIZON = 9


def loss(w, hyper, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ w) - y) ** 2) + hyper["l2"] * jnp.sum(w**2)


def of_fast(w, hyper, batch):
    return loss(w.fast, hyper, batch)


def objective(w, hyper, batch):
    return loss(w, {"l2": 0.0}, batch) + jnp.sum(w**3)


def lookahead(hyper):
    """Optax's, whose updates are of the fast weights, given gradients by both."""
    ahead = optax.lookahead(optax.sgd(hyper["lr"]), 4, hyper["blend"])
    update = lambda g, slots, w: ahead.update(g.fast, slots, w)  # noqa: E731
    return optax.GradientTransformation(ahead.init, update)


class Averaged(NamedTuple):
    """The slots of an optimiser, and an average of its parameters."""

    slots: optax.OptState
    mean: jax.Array
    count: jax.Array


def averaging(optim, weight):
    """``optim`` with an average in which the newest parameters have ``weight(count)``."""

    def init(w):
        return Averaged(optim.init(w), w, jnp.zeros((), jnp.int32))

    def update(gradient, state, w):
        updates, slots = optim.update(gradient, state.slots, w)
        newest = optax.apply_updates(w, updates)
        mean = optax.incremental_update(newest, state.mean, weight(state.count))
        return updates, Averaged(slots, mean, state.count + 1)

    return optax.GradientTransformation(init, update)


def schedule_free_weights(params, slots):
    return optax.contrib.schedule_free_eval_params(slots, params)


def mean_of_slots(params, slots):
    return slots.mean


START = jnp.array([0.3, -0.2, 0.1, 0.4])
CASES = {
    "schedule-free sgd": (
        loss,
        lambda h: optax.contrib.schedule_free_sgd(h["lr"], b1=h["blend"]),
        START,
        schedule_free_weights,
    ),
    "schedule-free adamw": (
        loss,
        lambda h: rfho.optim.schedule_free_adamw(h["lr"], b1=h["blend"], eps=1e-3),
        START,
        schedule_free_weights,
    ),
    "lookahead": (
        of_fast,
        lookahead,
        optax.LookaheadParams.init_synced(START),
        lambda params, slots: params.slow,
    ),
    "exponential average": (
        loss,
        lambda h: averaging(optax.adam(h["lr"], eps_root=1e-6), lambda n: 1 - h["blend"]),
        START,
        mean_of_slots,
    ),
    "stochastic weight averaging": (
        loss,
        lambda h: averaging(optax.sgd(h["lr"], momentum=h["blend"]), lambda n: 1 / (n + 1.0)),
        START,
        mean_of_slots,
    ),
}
HYPER = {"lr": jnp.array(0.2), "l2": jnp.array(0.03), "blend": jnp.array(0.7)}


def by_optax(name, hyper):
    """The objective after a loop as Optax writes it, at the weights that it evaluates."""
    inner, optim, params, output = CASES[name]
    slots = optim(hyper).init(params)
    for _ in range(HORIZON):
        gradient = jax.grad(inner)(params, hyper, (X, Y))
        updates, slots = optim(hyper).update(gradient, slots, params)
        params = optax.apply_updates(params, updates)
    newest = getattr(params, "fast", params)
    return tuple(objective(w, hyper, (X, Y)) for w in (output(params, slots), newest))


@pytest.mark.parametrize("name", CASES)
def test_value_and_hypergradient_are_those_of_the_averaged_weights(name):
    inner, optim, init, output = CASES[name]
    dynamics = rfho.Descent(inner, optim, init, output=output)
    problem = rfho.Problem(dynamics, objective, train=(X, Y), valid=(X, Y), horizon=HORIZON)
    f = jax.jit(lambda hyper: by_optax(name, hyper))
    averaged, newest = f(HYPER)
    assert abs(averaged - newest) > 1e-5
    slope = {leaf: central(lambda hyper: f(hyper)[0], leaf) for leaf in HYPER}
    for method in (
        ReverseHyperGradient(),
        ReverseHyperGradient(rfho.StoreAll(rfho.Keep.RESIDUALS)),
        ForwardHyperGradient(),
    ):
        estimate = rfho.hyper_gradient(problem, HYPER, method)
        np.testing.assert_allclose(estimate.value, averaged, rtol=1e-12)
        for leaf, found in estimate.hypergradient.items():
            np.testing.assert_allclose(found, slope[leaf], rtol=1e-6, atol=1e-9)


def central(f, leaf, step=1e-5):
    """A difference of fourth order along one leaf."""
    at = lambda h: float(f(HYPER | {leaf: HYPER[leaf] + h}))  # noqa: E731
    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


@pytest.mark.usefixtures("unchecked")
def test_an_output_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"output must be a function \(params, slots\)"):
        rfho.Descent(loss, lambda hyper: optax.sgd(0.1), START, output=START)


def test_a_condition_on_parameters_does_not_speak_of_averages():
    inner, optim, init, output = CASES["schedule-free sgd"]
    dynamics = rfho.Descent(inner, optim, init, output=output)
    problem = rfho.Problem(dynamics, objective, train=(X, Y), valid=(X, Y), horizon=HORIZON)
    with pytest.raises(TypeError, match="leave output out"):
        rfho.hyper_gradient(problem, {"l2": 0.1, "lr": 0.1, "blend": 0.9}, ImplicitHyperGradient())
