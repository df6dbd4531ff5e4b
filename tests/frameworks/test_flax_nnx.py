"""Flax NNX."""

import jax.numpy as jnp
import numpy as np
import optax
import plain
import pytest

nnx = pytest.importorskip("flax.nnx", reason="flax is not installed: pip install flax")

from rfho.adapters.nnx import network  # noqa: E402

NORM = plain.Norm(epsilon=1e-5)


class Net(nnx.Module):
    def __init__(self, dropout, rngs):
        self.a = nnx.Linear(plain.INPUTS, plain.WIDTH, rngs=rngs, param_dtype=jnp.float64)
        self.norm = nnx.BatchNorm(
            plain.WIDTH, momentum=plain.MOMENTUM, rngs=rngs, param_dtype=jnp.float64
        )
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.b = nnx.Linear(plain.WIDTH, plain.CLASSES, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.b(self.drop(nnx.tanh(self.norm(self.a(x)))))


def built(dropout=0.0):
    model, w = Net(dropout, nnx.Rngs(0)), plain.drawn()
    model.a.kernel[...], model.a.bias[...] = w.a, w.a_bias
    model.norm.scale[...], model.norm.bias[...] = w.scale, w.shift
    model.b.kernel[...], model.b.bias[...] = w.b, w.b_bias
    return model


def kernels(params):
    return params["a"]["kernel"], params["b"]["kernel"]


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(built()), kernels, NORM)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    plain.assert_right_with_dropout(network(built(dropout=0.2)), kernels)


def own_loop():
    model = built()
    for statistic in (model.norm.mean, model.norm.var):
        statistic.set_value(statistic[...].astype(jnp.float64))
    optimiser = nnx.Optimizer(model, optax.sgd(plain.HYPER["lr"], momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimiser, x, y, index):
        def loss(model):
            decay = plain.penalty((model.a.kernel[...], model.b.kernel[...]), plain.HYPER)
            return plain.weighted(model(x), y, index, plain.HYPER) + decay

        optimiser.update(model, nnx.grad(loss)(model))

    for x, y, index, _ in plain.batches():
        step(model, optimiser, x, y, index)
    model.eval()
    return plain.entropies(model(plain.VALID[0]), plain.VALID[1]).mean()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(built()), kernels, own_loop)


def test_layers_draw_different_dropout():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.one, self.other = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.stack([self.one(x), self.other(x)])

    net = network(Twice(nnx.Rngs(0)))
    one, other = net.apply(*net.variables, jnp.ones(64), nnx.Rngs(0)())[0]
    assert not np.array_equal(one, other)


def test_the_model_stays_as_it_is_and_takes_trained_values_back():
    model = built()
    net = network(model)
    _, carried = net.apply(*net.variables, plain.VALID[0], nnx.Rngs(0)())
    assert np.array_equal(model.norm.mean[...], np.zeros(plain.WIDTH))
    assert type(model.norm.mean) is nnx.BatchStat
    nnx.update(model, net.params, carried)
    assert np.array_equal(model.norm.mean[...], carried["norm"]["mean"])
    model.eval()
    outputs, _ = net.apply(net.params, carried, plain.VALID[0], None)
    np.testing.assert_allclose(model(plain.VALID[0]), outputs, rtol=1e-12)
