"""Healthy models of Keras, TensorFlow and PyTorch: no finding, and nothing refused."""

import os

import numpy as np
import pytest
from healthy import assert_raises_no_alarm

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RNG = np.random.default_rng(0)
FLAT = RNG.normal(size=(8, 4)).astype("float32")
WORDS = RNG.integers(0, 6, size=(8, 5)).astype("int32")
SEQUENCES = RNG.normal(size=(8, 5, 4)).astype("float32")
IMAGES = RNG.normal(size=(8, 6, 6, 1)).astype("float32")
TARGET = RNG.normal(size=8).astype("float32")


def needs(package):
    return pytest.importorskip(package, reason=f"{package} is not installed: make test-frameworks")


def in_keras(build, inputs=FLAT):
    keras = needs("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("another backend was chosen in this process")
    from rfho.adapters.keras import network

    first = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
    return network(keras.Model(first, build(keras.layers, first))), inputs


def attended(layers, x):
    return layers.MultiHeadAttention(2, 2)(x, x)


KERAS = {
    "a perceptron": lambda layers, x: layers.Dense(3)(layers.Dense(5, activation="tanh")(x)),
    "dropout": lambda layers, x: layers.Dropout(0.2)(layers.Dense(3)(x)),
    "layer normalisation": lambda layers, x: layers.LayerNormalization()(layers.Dense(4)(x)),
    "batch normalisation": lambda layers, x: layers.BatchNormalization()(layers.Dense(4)(x)),
    "a convolution": (lambda layers, x: layers.Conv2D(2, 3, activation="swish")(x), IMAGES),
    "words": (lambda layers, x: layers.Embedding(6, 3)(x), WORDS),
    "attention": (attended, SEQUENCES),
    "recurrent": (lambda layers, x: layers.GRU(3)(x), SEQUENCES),
}


def in_tensorflow(build):
    tf = needs("tensorflow")
    needs("tf2jax")
    from rfho.adapters.tensorflow import network

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            shapes, self.function, self.inputs = build(tf)
            draw = np.random.default_rng(1).normal
            self.w = [
                tf.Variable(0.5 * draw(size=shape).astype("float32"), name=f"w{i}")
                for i, shape in enumerate(shapes)
            ]

        def __call__(self, x, training):
            return self.function(x, training, *self.w)

    model = Model()
    return network(model, model.inputs), model.inputs


def unrolled(tf, x, a, b):
    h = tf.zeros_like(x[:, 0])
    for t in range(5):
        h = tf.tanh(x[:, t] @ a + h @ b)
    return h


def normed(tf, x, scale):
    x = x - tf.reduce_mean(x, 1, keepdims=True)
    return scale * x * tf.math.rsqrt(tf.reduce_mean(x**2, 1, keepdims=True) + 1e-3)


TENSORFLOW = {
    "a perceptron": lambda tf: (
        [(4, 5), (5, 3)],
        lambda x, training, a, b: tf.tanh(x @ a) @ b,
        FLAT,
    ),
    "dropout": lambda tf: (
        [(4, 3)],
        lambda x, training, a: tf.nn.dropout(x @ a, 0.2) if training else x @ a,
        FLAT,
    ),
    "layer normalisation": lambda tf: (
        [(4, 4), (4,)],
        lambda x, training, a, scale: normed(tf, x @ a, scale),
        FLAT,
    ),
    "a convolution": lambda tf: (
        [(3, 3, 1, 2)],
        lambda x, training, kernel: tf.nn.softplus(tf.nn.conv2d(x, kernel, 1, "VALID")),
        IMAGES,
    ),
    "words": lambda tf: ([(6, 3)], lambda x, training, table: tf.gather(table, x), WORDS),
    "recurrent": lambda tf: (
        [(4, 4), (4, 4)],
        lambda x, training, a, b: unrolled(tf, x, a, b),
        SEQUENCES,
    ),
}


def in_torch(build, inputs=FLAT):
    torch = needs("torch")
    needs("torchax")
    from rfho.adapters.torch import network

    torch.manual_seed(0)
    return network(build(torch.nn)), inputs


TORCH = {
    "a perceptron": lambda nn: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "dropout": lambda nn: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.2)),
    "layer normalisation": lambda nn: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
    "batch normalisation": lambda nn: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
    "a convolution": (
        lambda nn: nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU()),
        np.moveaxis(IMAGES, -1, 1),
    ),
    "words": (lambda nn: nn.Embedding(6, 3), WORDS),
}

ADAPTERS = {"keras": (in_keras, KERAS), "torch": (in_torch, TORCH)}
MODELS = [
    *(("tensorflow", name) for name in TENSORFLOW),
    *((adapter, name) for adapter, (_, models) in ADAPTERS.items() for name in models),
]


def built(adapter, name):
    if adapter == "tensorflow":
        return in_tensorflow(TENSORFLOW[name])
    of, models = ADAPTERS[adapter]
    model = models[name]
    return of(*model) if isinstance(model, tuple) else of(model)


@pytest.mark.soak
@pytest.mark.parametrize(("adapter", "name"), MODELS, ids=[f"{of}: {name}" for of, name in MODELS])
def test_a_healthy_model_raises_no_alarm(adapter, name):
    assert_raises_no_alarm(*built(adapter, name), TARGET)


def test_there_are_twenty():
    assert len(MODELS) >= 20
