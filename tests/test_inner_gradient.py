"""The inner gradient that the dynamics share: what is kept of it, and what its way back costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho._engines.reverse import blank_tape
from rfho.dynamics import AbstractDescent, DescentState
from rfho.memory import Span

X = jnp.asarray(np.random.default_rng(0).normal(size=(100, 20)))
Y = jnp.sin(X @ jnp.ones(20))
HYPER = {"lr": jnp.array(0.1), "l2": jnp.array(0.01)}


def on_batch(w, hyper, batch):
    x, y = batch
    return jnp.mean(jnp.tanh(x @ w - y) ** 2) + hyper["l2"] * jnp.sum(w**2)


def closing_over(w, hyper, batch):
    return on_batch(w, hyper, (X, Y))


def rate(hyper, t):
    return hyper["lr"]


def descending(loss):
    """The three dynamics that descend a loss, and a step written by hand."""
    start = jnp.zeros(20)
    return {
        "Descent": rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), start),
        "HeavyBall": rfho.HeavyBall(loss, rate, lambda hyper, t: 0.9, init=start),
        "ReversibleDescent": rfho.ReversibleDescent(loss, rate, lambda h, t: 0.9, init=start),
        "rfho.grad": rfho.Dynamics(
            lambda hyper: start,
            lambda w, hyper, batch: w - hyper["lr"] * rfho.grad(loss)(w, hyper, batch),
        ),
        "jax.grad": rfho.Dynamics(
            lambda hyper: start,
            lambda w, hyper, batch: w - hyper["lr"] * jax.grad(loss)(w, hyper, batch),
        ),
    }


NAMES = list(descending(on_batch))


def bytes_on_tape(dynamics, train):
    objective = lambda w, hyper, batch: jnp.sum(w**2)  # noqa: E731
    problem = rfho.Problem(dynamics, objective, train=train, valid=None, horizon=50)
    policy = rfho.StoreAll(rfho.Keep.RESIDUALS)
    tape = jax.eval_shape(lambda: blank_tape(problem, HYPER, span=Span(0, 50), checkpoint=policy))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tape))


@pytest.mark.parametrize("name", NAMES)
def test_data_that_a_loss_closes_over_are_not_kept_at_every_step(name):
    closed = bytes_on_tape(descending(closing_over)[name], None)
    given = bytes_on_tape(descending(on_batch)[name], (X, Y))
    assert closed == given < 51 * 4 * X[0].nbytes + 50 * 3 * Y.nbytes


@pytest.mark.parametrize("name", ["Descent", "HeavyBall", "ReversibleDescent"])
def test_a_step_is_a_gradient_and_an_update(name):
    dynamics = descending(on_batch)[name]
    assert isinstance(dynamics, AbstractDescent)
    state, batch = dynamics.init(HYPER), (X, Y)
    gradient = dynamics.gradient(state.params, HYPER, batch)
    expected = jax.grad(dynamics.loss)(state.params, HYPER, batch)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-14)
    updated = dynamics.update(state, gradient, HYPER)
    jax.tree.map(np.testing.assert_array_equal, updated, dynamics.step(state, HYPER, batch))


def deep(w, hyper, batch):
    """A deep network whose layers are computed again on the way back."""
    layer = jax.checkpoint(lambda x, w: (jnp.tanh(jnp.tanh(x @ w) @ w.T), None))
    return jnp.mean(jnp.exp(hyper["l2"]) * jax.lax.scan(layer, batch, w)[0] ** 2)


@pytest.mark.parametrize("keep", [rfho.Keep.STATES, rfho.Keep.GRADIENTS])
def test_the_way_back_needs_the_memory_of_one_jvp(keep):
    w, batch = jnp.ones((12, 16, 16)) / 16, jnp.ones((64, 16))
    way = rfho.Descent(deep, lambda hyper: optax.sgd(hyper["lr"]), w).way(keep)
    state = DescentState(w, optax.sgd(0.1).init(w))

    def back(state, adjoint):
        _, memory = way.remember(state, HYPER, batch)
        return way.pull_back(adjoint, state, memory, HYPER, batch)

    def one_jvp(w, v):
        return jax.jvp(lambda w: jax.grad(deep, argnums=(0, 1))(w, HYPER, batch), (w,), (v,))[1]

    def linearised(w, v):
        return jax.linearize(lambda w: jax.grad(deep, argnums=(0, 1))(w, HYPER, batch), w)[1](v)

    adjoint = jax.tree.map(jnp.ones_like, state)
    ours, least = bytes_of(back, state, adjoint), bytes_of(one_jvp, w, w)
    assert least < ours < 0.6 * bytes_of(linearised, w, w)


def bytes_of(function, *arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


REFUSED = {
    "a pair without has_aux": (lambda w, h, b: (on_batch(w, h, b), 1.0), False, "has_aux=True"),
    "a dictionary": (lambda w, h, b: {"loss": on_batch(w, h, b)}, False, "a dict, but it must"),
    "a scalar with has_aux": (on_batch, True, r"must return a pair \(scalar, aux\)"),
    "three with has_aux": (lambda w, h, b: (on_batch(w, h, b), 1, 2), True, "a tuple of length 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_that_returns_something_else_is_refused(name):
    loss, has_aux, words = REFUSED[name]
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), jnp.zeros(20), has_aux=has_aux)
    with pytest.raises(TypeError, match=words):
        dynamics.step(dynamics.init(HYPER), HYPER, (X, Y))


def test_heavy_ball_refuses_a_loss_with_aux():
    dynamics = rfho.HeavyBall(REFUSED["a dictionary"][0], rate, rate, init=jnp.zeros(20))
    with pytest.raises(TypeError, match="a dict"):
        dynamics.step(dynamics.init(HYPER), HYPER, (X, Y))
