"""Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
import pytest

from rfho.adapters.equinox import network

NORM = plain.Norm(epsilon=1e-5, debiased=True)


class Net(eqx.Module):
    a: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    activation: object
    drop: eqx.nn.Dropout
    b: eqx.nn.Linear

    def __init__(self, dropout):
        keys = jax.random.split(jax.random.key(0))
        self.a = eqx.nn.Linear(plain.INPUTS, plain.WIDTH, key=keys[0])
        self.norm = eqx.nn.BatchNorm(plain.WIDTH, "examples", momentum=plain.MOMENTUM, mode="batch")
        self.activation = jnp.tanh
        self.drop = eqx.nn.Dropout(dropout)
        self.b = eqx.nn.Linear(plain.WIDTH, plain.CLASSES, key=keys[1])

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.a(x), state)
        return self.b(self.drop(self.activation(x), key=key)), state


def built(dropout=0.0):
    """Model and state, with the weights of the plain network."""
    model, state = eqx.nn.make_with_state(Net)(dropout)
    w = plain.drawn()
    where = lambda m: (  # noqa: E731
        *(m.a.weight, m.a.bias, m.norm.weight, m.norm.bias, m.b.weight, m.b.bias),
    )
    weights = w._replace(a=w.a.T, b=w.b.T)
    state = state.set(model.norm.batch_state_index, (jnp.zeros(plain.WIDTH), jnp.ones(plain.WIDTH)))
    return eqx.tree_at(where, model, tuple(weights)), state


def kernels(params):
    return params.a.weight, params.b.weight


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(*built()), kernels, NORM)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    plain.assert_right_with_dropout(network(*built(dropout=0.2)), kernels)


def own_loop():
    model, state = built()
    optim = optax.sgd(plain.HYPER["lr"], momentum=0.9)
    slots = optim.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, slots, x, y, index):
        def loss(model):
            run = jax.vmap(model, axis_name="examples", in_axes=(0, None), out_axes=(0, None))
            logits, after = run(x, state)
            decay = plain.penalty(kernels(model), plain.HYPER)
            return plain.weighted(logits, y, index, plain.HYPER) + decay, after

        gradient, state_after = eqx.filter_grad(loss, has_aux=True)(model)
        updates, slots_after = optim.update(gradient, slots)
        return eqx.apply_updates(model, updates), state_after, slots_after

    for x, y, index, _ in plain.batches():
        model, state, slots = step(model, state, slots, x, y, index)
    x, y = plain.VALID
    model = eqx.nn.inference_mode(model)
    logits, _ = jax.vmap(model, axis_name="examples", in_axes=(0, None), out_axes=(0, None))(
        x, state
    )
    return plain.entropies(logits, y).mean()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(*built()), kernels, own_loop)


def test_statistics_inside_a_model_are_carried_and_not_trained():
    net = network(Net(0.0))
    assert len(jax.tree.leaves(net.params)) == 6
    assert len(jax.tree.leaves(net.carried)) == 3


def test_a_model_without_state_or_key_and_one_of_whole_batches():
    class Plain(eqx.Module):
        w: jax.Array

        def __call__(self, x):
            return self.w * x

    model = Plain(jnp.array(2.0))
    x = jnp.arange(4.0)
    net = network(model)
    assert net.apply(*net.variables, x, jax.random.key(0))[0].tolist() == [0.0, 2.0, 4.0, 6.0]
    whole = network(model, call=lambda model, state, x, key: (model(x - x.mean()), state))
    assert whole.apply(*whole.variables, x, None)[0].tolist() == [-3.0, -1.0, 1.0, 3.0]


def test_trained_values_go_back_into_the_model():
    model, state = built()
    net = network(model, state)
    trained = jax.tree.map(lambda leaf: 2 * leaf, net.params)
    back = eqx.combine(trained, model)
    assert np.array_equal(back.b.weight, 2 * model.b.weight)
    assert back.activation is jnp.tanh


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_both_modes_of_batch_normalisation_carry_derivatives(mode):
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(plain.INPUTS, "examples", mode=mode)
    net = network(norm, state)

    def moved(scale):
        _, carried = net.apply(net.params, net.carried, scale * plain.X, jax.random.key(0))
        return sum(
            jnp.sum(leaf)
            for leaf in jax.tree.leaves(carried)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
        )

    expected = (moved(1 + 1e-6) - moved(1 - 1e-6)) / 2e-6
    assert float(jax.grad(moved)(1.0)) == pytest.approx(float(expected), rel=1e-6)
