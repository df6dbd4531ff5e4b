"""Twenty healthy models of four frameworks: no finding, and nothing refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from healthy import assert_raises_no_alarm

import rfho

nnx = pytest.importorskip("flax.nnx", reason="flax is not installed: pip install flax")
nn = pytest.importorskip("flax.linen", reason="flax is not installed: pip install flax")
hk = pytest.importorskip("haiku", reason="dm-haiku is not installed: pip install dm-haiku")

from rfho.adapters import equinox, haiku, linen  # noqa: E402
from rfho.adapters import nnx as of_nnx  # noqa: E402
from rfho.adapters.network import Network  # noqa: E402

KEY = jax.random.key(0)
FLAT = jax.random.normal(KEY, (8, 4))
WORDS = jax.random.randint(KEY, (8, 5), 0, 6)
SEQUENCES = jax.random.normal(KEY, (8, 5, 4))
IMAGES = jax.random.normal(KEY, (8, 6, 6, 1))
TARGET = jax.random.normal(jax.random.key(1), (8,))


class Sequence(eqx.Module):
    cell: eqx.nn.GRUCell

    def __call__(self, x):
        return jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(4), x)[0]


class Attended(eqx.Module):
    inner: eqx.nn.MultiheadAttention

    def __call__(self, x):
        return self.inner(x, x, x)


class Normed(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout

    def __init__(self):
        self.linear = eqx.nn.Linear(4, 4, key=KEY)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="ema")
        self.drop = eqx.nn.Dropout(0.2)

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.linear(x), state)
        return self.drop(jnp.tanh(x), key=key), state


def of_equinox(model, inputs=FLAT):
    return equinox.network(model), inputs


class InOrder(nnx.Module):
    def __init__(self, *layers):
        self.layers = nnx.List(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def in_nnx(*layers, inputs=FLAT):
    return of_nnx.network(InOrder(*layers)), inputs


def in_linen(module, inputs=FLAT, **mode):
    return linen.network(module, module.init(KEY, inputs, **mode)), inputs


class LinenNormed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(not train)(nn.Dense(4)(x))


def in_haiku(function, inputs=FLAT):
    model = hk.transform_with_state(function)
    return haiku.network(model, *model.init(KEY, inputs, True)), inputs


def unrolled(x, training):
    core = hk.LSTM(4)
    return hk.dynamic_unroll(core, x, core.initial_state(8), time_major=False)[0]


def by_layers():
    w = {"table": FLAT[:6], "scale": jnp.ones(4)}

    def apply(w, carried, index, key):
        x = rfho.layers.embedding(w["table"], index)
        x = rfho.layers.attention(x, x, x, block=2).mean(1)
        if key is None:
            return rfho.layers.normalised_by(x, carried) * w["scale"], carried
        x, carried = rfho.layers.normalised(x, carried)
        return x * w["scale"], carried

    return Network(w, rfho.layers.statistics(4, str(FLAT.dtype)), apply), WORDS


MODELS = {
    "equinox: a linear map": lambda: of_equinox(eqx.nn.Linear(4, 3, key=KEY)),
    "equinox: a perceptron": lambda: of_equinox(eqx.nn.MLP(4, 3, 5, 2, jnp.tanh, key=KEY)),
    "equinox: layer normalisation": lambda: of_equinox(eqx.nn.LayerNorm(4)),
    "equinox: batch normalisation": lambda: (
        equinox.network(*eqx.nn.make_with_state(Normed)()),
        FLAT,
    ),
    "equinox: recurrent": lambda: of_equinox(Sequence(eqx.nn.GRUCell(4, 4, key=KEY)), SEQUENCES),
    "equinox: attention": lambda: of_equinox(
        Attended(eqx.nn.MultiheadAttention(2, 4, key=KEY)), SEQUENCES
    ),
    "equinox: a convolution": lambda: of_equinox(
        eqx.nn.Conv2d(1, 2, 3, key=KEY), jnp.moveaxis(IMAGES, -1, 1)
    ),
    "nnx: a linear map": lambda: in_nnx(nnx.Linear(4, 3, rngs=nnx.Rngs(0))),
    "nnx: batch normalisation": lambda: in_nnx(
        nnx.Linear(4, 3, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(3, rngs=nnx.Rngs(0)),
        inputs=FLAT.astype(jnp.float32),
    ),
    "nnx: dropout": lambda: in_nnx(
        nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.2, rngs=nnx.Rngs(0))
    ),
    "nnx: layer normalisation": lambda: in_nnx(nnx.LayerNorm(4, rngs=nnx.Rngs(0))),
    "nnx: a convolution": lambda: in_nnx(
        nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.swish, inputs=IMAGES
    ),
    "nnx: words": lambda: in_nnx(nnx.Embed(9, 3, rngs=nnx.Rngs(0)), inputs=WORDS),
    "linen: a dense layer": lambda: in_linen(nn.Dense(3)),
    "linen: batch normalisation": lambda: in_linen(LinenNormed(), train=False),
    "linen: group normalisation": lambda: in_linen(nn.GroupNorm(2)),
    "linen: attention": lambda: in_linen(
        nn.MultiHeadDotProductAttention(2, deterministic=True), SEQUENCES
    ),
    "haiku: a linear map": lambda: in_haiku(lambda x, training: hk.Linear(3)(x)),
    "haiku: batch normalisation": lambda: in_haiku(
        lambda x, training: hk.BatchNorm(True, True, 0.9)(hk.Linear(3)(x), training)
    ),
    "haiku: recurrent": lambda: in_haiku(unrolled, SEQUENCES),
    "rfho: words, attention, normalisation": by_layers,
}


@pytest.mark.soak
@pytest.mark.parametrize("name", MODELS)
def test_a_healthy_model_raises_no_alarm(name):
    assert_raises_no_alarm(*MODELS[name](), TARGET)


def test_there_are_twenty():
    assert len(MODELS) >= 20
