"""A small network in plain JAX, and the problem that it and every framework's model are given.

Dense, batch normalisation, tanh, dense: what a framework's model computes with the same weights is compared
with this, after training under rates, decays of each layer and weights of every example.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.adapters.network import Network
from rfho.checks import Verdict, derivative, judged

EXAMPLES, INPUTS, WIDTH, CLASSES, BATCH, HORIZON = 60, 6, 5, 3, 20, 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(EXAMPLES, INPUTS))
Y = (X @ RNG.normal(size=(INPUTS, CLASSES)) + RNG.normal(size=(EXAMPLES, CLASSES))).argmax(1)
VALID = X + 0.3 * RNG.normal(size=X.shape), Y
MOMENTUM = 0.9

HYPER = {
    "lr": jnp.array(0.1),
    "decay": jnp.array([1e-2, 2e-2]),
    "weights": jnp.linspace(-1.0, 1.0, EXAMPLES),
}
RUN = rfho.Keyed(rfho.Stream((X, Y, np.arange(EXAMPLES)), size=BATCH, key=0), key=1)


class Weights(NamedTuple):
    """Of the plain network."""

    a: jax.Array
    a_bias: jax.Array
    scale: jax.Array
    shift: jax.Array
    b: jax.Array
    b_bias: jax.Array


class Norm(NamedTuple):
    """How a framework normalises a batch."""

    epsilon: float
    unbiased: bool = False
    debiased: bool = False
    var: float = 1.0


def drawn():
    """Weights that every framework is given."""
    rng = np.random.default_rng(1)
    shapes = (INPUTS, WIDTH), WIDTH, WIDTH, WIDTH, (WIDTH, CLASSES), CLASSES
    return Weights(*(jnp.asarray(rng.normal(size=shape)) / 2 for shape in shapes))


def plain(norm):
    """The plain network with a framework's batch normalisation."""

    def apply(w, carried, x, key):
        h = x @ w.a + w.a_bias
        mean, var, count = carried["mean"], carried["var"], carried["count"]
        if key is None:
            if norm.debiased:
                mean, var = (average / (1 - MOMENTUM**count) for average in (mean, var))
            after = carried
        else:
            more = len(x) / (len(x) - 1) if norm.unbiased else 1.0
            after = {
                "mean": MOMENTUM * mean + (1 - MOMENTUM) * h.mean(0),
                "var": MOMENTUM * var + (1 - MOMENTUM) * h.var(0) * more,
                "count": count + 1,
            }
            mean, var = h.mean(0), h.var(0)
        h = jnp.tanh((h - mean) / jnp.sqrt(var + norm.epsilon) * w.scale + w.shift)
        return h @ w.b + w.b_bias, after

    carried = {
        "mean": jnp.zeros(WIDTH),
        "var": jnp.full(WIDTH, norm.var),
        "count": jnp.array(0),
    }
    return Network(drawn(), carried, apply)


def entropies(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def weighted(logits, y, index, hyper):
    return jnp.mean(jax.nn.sigmoid(hyper["weights"])[index] * entropies(logits, y))


def penalty(kernels, hyper):
    return sum(
        decay * jnp.sum(kernel**2) for decay, kernel in zip(hyper["decay"], kernels, strict=True)
    )


def problem_of(network, kernels, train=RUN, valid=VALID):
    """Training ``network`` under SGD with momentum; ``kernels(params)`` are those that decay."""

    def loss(variables, hyper, batch):
        (x, y, index), key = batch
        logits, carried = network.apply(*variables, x, key)
        return weighted(logits, y, index, hyper) + penalty(
            kernels(variables.params), hyper
        ), carried

    def objective(variables, hyper, batch):
        x, y = batch
        return jnp.mean(entropies(network.apply(*variables, x, None)[0], y))

    def optim(hyper):
        return optax.sgd(hyper["lr"], momentum=0.9)

    dynamics = rfho.Descent(loss, optim, network.variables, has_aux=True)
    return rfho.Problem(dynamics, objective, train=train, valid=valid, horizon=HORIZON)


def batches():
    """Those of a run, with their keys, for a framework's own training loop."""
    for t in range(HORIZON):
        (x, y, index), key = RUN(t)
        yield np.asarray(x), np.asarray(y), np.asarray(index), key


def assert_equal_to_plain(network, kernels, norm, rtol=1e-10):
    """The hypergradient is that of the plain network."""
    found = rfho.hyper_gradient(problem_of(network, kernels), HYPER)
    plainly = plain(norm)
    expected = rfho.hyper_gradient(problem_of(plainly, lambda w: (w.a, w.b)), HYPER)
    assert float(found.value) == pytest.approx(float(expected.value), rel=rtol)
    for name, leaf in expected.hypergradient.items():
        scale = float(jnp.abs(leaf).max())
        np.testing.assert_allclose(
            found.hypergradient[name], leaf, rtol=rtol, atol=rtol * scale, err_msg=name
        )


def assert_right_with_dropout(network, kernels):
    """Dropout differs from key to key and is off in evaluation; the hypergradient is that of differences."""
    one, again, other = (
        network.apply(*network.variables, X, jax.random.key(seed))[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    still, carried = network.apply(*network.variables, X, None)
    assert np.array_equal(still, network.apply(*network.variables, X, None)[0])
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, carried, network.carried))
    assert_right_by_differences(problem_of(network, kernels), float(finfo(network).eps))


def assert_right_by_differences(problem, rounding):
    """Along one direction; half the time of `rfho.check_hyper_gradient`, which compiles a second method."""
    found = rfho.hyper_gradient(problem, HYPER).hypergradient
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), HYPER)
    parts = [
        np.asarray(slope * d).ravel()
        for slope, d in zip(jax.tree.leaves(found), jax.tree.leaves(along), strict=True)
    ]

    def value(h):
        hyper = jax.tree.map(lambda leaf, d: leaf + h * d, HYPER, along)
        return float(rfho.train(problem, hyper).value)

    slope, scale = np.concatenate(parts).sum(), np.abs(np.concatenate(parts)).sum()
    seen = derivative(value, rounding)
    assert judged(float(slope), seen, float(scale), rounding=rounding) is Verdict.AGREES


def finfo(network):
    return jnp.finfo(jax.tree.leaves(network.params)[0].dtype)


def assert_trains_as(network, kernels, own_loop, rtol=1e-10):
    """The objective after training is that of the framework's own training loop."""
    value = float(rfho.train(problem_of(network, kernels), HYPER).value)
    assert value == pytest.approx(float(own_loop()), rel=rtol)
