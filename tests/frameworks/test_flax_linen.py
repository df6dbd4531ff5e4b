"""Flax Linen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
import pytest

nn = pytest.importorskip("flax.linen", reason="flax is not installed: pip install flax")

from rfho.adapters.linen import network  # noqa: E402

NORM = plain.Norm(epsilon=1e-5)


class Net(nn.Module):
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        dense = lambda size, name: nn.Dense(size, param_dtype=jnp.float64, name=name)  # noqa: E731
        x = dense(plain.WIDTH, "a")(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=plain.MOMENTUM,
            param_dtype=jnp.float64,
            name="norm",
        )(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.tanh(x))
        return dense(plain.CLASSES, "b")(x)


def built(model):
    """The variables of the module, with the weights of the plain network."""
    variables, w = model.init(jax.random.key(0), plain.X, train=False), plain.drawn()
    params = {
        "a": {"kernel": w.a, "bias": w.a_bias},
        "norm": {"scale": w.scale, "bias": w.shift},
        "b": {"kernel": w.b, "bias": w.b_bias},
    }
    return variables | {"params": params}


def kernels(params):
    return params["a"]["kernel"], params["b"]["kernel"]


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(Net(), built(Net())), kernels, NORM)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    model = Net(dropout=0.2)
    plain.assert_right_with_dropout(network(model, built(model)), kernels)


def test_statistics_get_the_precision_of_the_parameters():
    statistics = built(Net())["batch_stats"]["norm"]["mean"]
    assert statistics.dtype == jnp.float32
    assert network(Net(), built(Net())).carried["batch_stats"]["norm"]["mean"].dtype == jnp.float64


def own_loop():
    model, variables = Net(), built(Net())
    params = variables["params"]
    statistics = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables["batch_stats"])
    optim = optax.sgd(plain.HYPER["lr"], momentum=0.9)
    slots = optim.init(params)

    @jax.jit
    def step(params, statistics, slots, x, y, index):
        def loss(params):
            logits, after = model.apply(
                {"params": params, "batch_stats": statistics},
                x,
                train=True,
                mutable=["batch_stats"],
            )
            decay = plain.penalty(kernels(params), plain.HYPER)
            return plain.weighted(logits, y, index, plain.HYPER) + decay, after["batch_stats"]

        gradient, statistics_after = jax.grad(loss, has_aux=True)(params)
        updates, slots_after = optim.update(gradient, slots, params)
        return optax.apply_updates(params, updates), statistics_after, slots_after

    for x, y, index, _ in plain.batches():
        params, statistics, slots = step(params, statistics, slots, x, y, index)
    x, y = plain.VALID
    logits = model.apply({"params": params, "batch_stats": statistics}, x, train=False)
    return plain.entropies(logits, y).mean()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(Net(), built(Net())), kernels, own_loop)


class Rests(nn.Module):
    @nn.compact
    def __call__(self, x, *, deterministic):
        return nn.Dropout(0.5, deterministic=deterministic)(x)


class Unknown(nn.Module):
    @nn.compact
    def __call__(self, x, phase):
        return nn.Dropout(0.5, deterministic=phase == "test")(x)


def test_modules_are_told_their_mode_in_their_own_words():
    x = jnp.ones(64)
    for model, call in (
        (Rests(), None),
        (Unknown(), lambda module, x, training: module(x, "train" if training else "test")),
    ):
        net = network(model, {"params": {}}, call=call)
        assert np.array_equal(net.apply({}, {}, x, None)[0], x)
        assert not np.array_equal(net.apply({}, {}, x, jax.random.key(0))[0], x)


def test_an_argument_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match=r"takes 'phase' after its inputs.*pass call=lambda model"):
        network(Unknown(), {"params": {}})
