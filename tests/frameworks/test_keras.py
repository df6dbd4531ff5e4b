"""Keras 3 with its JAX backend."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest

pytestmark = pytest.mark.frameworks
os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip(
    "keras", reason="keras is not installed: make test-frameworks installs it"
)
if keras.backend.backend() != "jax":
    pytest.skip("another backend was chosen in this process", allow_module_level=True)

from rfho.adapters.keras import network  # noqa: E402

layers = keras.layers
NORM = plain.Norm(epsilon=1e-3)


def built(dropout=0.0, dtype="float32"):
    model = keras.Sequential(
        [
            keras.Input((plain.INPUTS,), dtype=dtype),
            layers.Dense(plain.WIDTH, name="a", dtype=dtype),
            layers.BatchNormalization(momentum=plain.MOMENTUM, name="norm", dtype=dtype),
            layers.Activation("tanh", dtype=dtype),
            layers.Dropout(dropout, dtype=dtype),
            layers.Dense(plain.CLASSES, name="b", dtype=dtype),
        ],
        name="net",
    )
    w = plain.drawn()
    for variable, value in zip(model.trainable_variables, w, strict=True):
        variable.assign(value)
    return model


def kernels(params):
    return params["net/a/kernel"], params["net/b/kernel"]


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(built()), kernels, NORM, rtol=1e-4)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    plain.assert_right_with_dropout(network(built(dropout=0.2)), kernels)


def own_loop():
    """By ``fit``, a batch at a time, with the decay of each layer as its regulariser."""
    model = built()
    for layer, decay in zip(("a", "b"), plain.HYPER["decay"], strict=True):
        model.get_layer(layer).kernel.regularizer = keras.regularizers.L2(float(decay))
    model.compile(
        optimizer=keras.optimizers.SGD(float(plain.HYPER["lr"]), momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for x, y, index, _ in plain.batches():
        weights = np.asarray(jax.nn.sigmoid(plain.HYPER["weights"])[index])
        model.train_on_batch(x, y, sample_weight=weights)
    x, y = plain.VALID
    return plain.entropies(jnp.asarray(model(x, training=False)), y).mean()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(built()), kernels, own_loop, rtol=1e-5)


def test_a_model_in_double_precision_is_refused():
    with pytest.raises(
        TypeError, match="net/a/kernel is in float64, but Keras computes with it in float32"
    ):
        network(built(dtype="float64"))


def test_losses_of_the_model_itself_are_refused():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, kernel_regularizer="l2")])
    net = network(model)
    with pytest.raises(ValueError, match="adds losses of its own"):
        net.apply(*net.variables, jnp.ones((4, 2)), None)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match=r"call model\.build"):
        network(keras.Sequential([layers.Dense(3)]))


def test_variables_are_found_by_their_paths_and_not_by_their_order():
    names = ["z", "a"]
    inputs = [keras.Input((2,)), layers.Dropout(0.5, name="y")]
    norms = [layers.BatchNormalization(momentum=0.0, name=name) for name in names]
    net = network(
        keras.Sequential([*inputs, norms[0], layers.Rescaling(3.0, 5.0), norms[1]], name="net")
    )
    x = jax.random.normal(jax.random.key(0), (8, 2))
    _, after = net.apply(*net.variables, x, jax.random.key(1))
    np.testing.assert_allclose(after["net/a/moving_mean"], 5.0, atol=1e-5)
    assert abs(after["net/z/moving_mean"]).max() < 2


def test_layers_draw_different_dropout():
    x = keras.Input((64,))
    both = layers.Concatenate()([layers.Dropout(0.5)(x), layers.Dropout(0.5)(x)])
    net = network(keras.Model(x, both))
    outputs, _ = net.apply(*net.variables, jnp.ones((1, 64)), jax.random.key(0))
    assert not np.array_equal(outputs[:, :64], outputs[:, 64:])


def test_trained_values_go_back_into_the_model():
    model = built()
    net = network(model)
    _, carried = net.apply(*net.variables, plain.X, jax.random.key(0))
    for variable in model.variables:
        variable.assign({**net.params, **carried}[variable.path])
    np.testing.assert_allclose(
        model(plain.X, training=False), net.apply(net.params, carried, plain.X, None)[0], rtol=1e-5
    )
