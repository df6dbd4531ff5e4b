"""Haiku."""

import jax
import jax.numpy as jnp
import optax
import plain
import pytest

hk = pytest.importorskip("haiku", reason="dm-haiku is not installed: pip install dm-haiku")

from rfho.adapters.haiku import network  # noqa: E402

NORM = plain.Norm(epsilon=1e-5, debiased=True, var=0.0)


def model_of(dropout=0.0):
    def net(x, training):
        x = hk.BatchNorm(True, True, plain.MOMENTUM, name="norm")(
            hk.Linear(plain.WIDTH, name="a")(x), training
        )
        x = jnp.tanh(x)
        if training and dropout:
            x = hk.dropout(hk.next_rng_key(), dropout, x)
        return hk.Linear(plain.CLASSES, name="b")(x)

    return hk.transform_with_state(net)


def built(dropout=0.0):
    """Model, parameters and state, with the weights of the plain network."""
    model, w = model_of(dropout), plain.drawn()
    _, state = model.init(jax.random.key(0), plain.X, True)
    params = {
        "a": {"w": w.a, "b": w.a_bias},
        "norm": {"scale": w.scale[None], "offset": w.shift[None]},
        "b": {"w": w.b, "b": w.b_bias},
    }
    return model, params, state


def kernels(params):
    return params["a"]["w"], params["b"]["w"]


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(*built()), kernels, NORM)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    plain.assert_right_with_dropout(network(*built(dropout=0.2)), kernels)


def own_loop():
    model, params, state = built()
    optim = optax.sgd(plain.HYPER["lr"], momentum=0.9)
    slots = optim.init(params)

    @jax.jit
    def step(params, state, slots, x, y, index):
        def loss(params):
            logits, after = model.apply(params, state, None, x, True)
            decay = plain.penalty(kernels(params), plain.HYPER)
            return plain.weighted(logits, y, index, plain.HYPER) + decay, after

        gradient, state_after = jax.grad(loss, has_aux=True)(params)
        updates, slots_after = optim.update(gradient, slots, params)
        return optax.apply_updates(params, updates), state_after, slots_after

    for x, y, index, _ in plain.batches():
        params, state, slots = step(params, state, slots, x, y, index)
    x, y = plain.VALID
    return plain.entropies(model.apply(params, state, None, x, False)[0], y).mean()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(*built()), kernels, own_loop)


def test_a_function_without_state_and_modes():
    model = hk.transform(lambda x: hk.dropout(hk.next_rng_key(), 0.5, x) if x.ndim > 1 else 2 * x)
    net = network(model, {}, arguments=lambda inputs, training: (inputs,))
    assert net.apply({}, {}, jnp.ones(2), None)[0].tolist() == [2.0, 2.0]
