"""TensorFlow, translated by tf2jax, against TensorFlow itself."""

import os

import jax
import numpy as np
import plain
import pytest

pytestmark = pytest.mark.frameworks
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip(
    "tensorflow", reason="tensorflow is not installed: make test-frameworks installs it"
)
pytest.importorskip("tf2jax", reason="tf2jax is not installed: make test-frameworks installs it")

from rfho.adapters.tensorflow import network  # noqa: E402

NORM = plain.Norm(epsilon=1e-3)


def by_hand(x):
    mean = tf.reduce_mean(x, 0)
    return mean, tf.reduce_mean((x - mean) ** 2, 0)


class Net(tf.Module):
    def __init__(self, dropout=0.0, moments=by_hand):
        super().__init__()
        names = ("a", "a_bias", "scale", "shift", "b", "b_bias")
        w = [np.asarray(leaf) for leaf in plain.drawn()]
        self.w = [tf.Variable(leaf, name=name) for name, leaf in zip(names, w, strict=True)]
        zeros = np.zeros(plain.WIDTH)
        self.mean = tf.Variable(zeros, trainable=False, name="mean")
        self.var = tf.Variable(zeros + 1, trainable=False, name="var")
        self.dropout, self.moments = dropout, moments

    def __call__(self, x, training):
        a, a_bias, scale, shift, b, b_bias = self.w
        h = x @ a + a_bias
        mean, var = self.mean, self.var
        if training:
            mean, var = self.moments(h)
            for running, now in ((self.mean, mean), (self.var, var)):
                running.assign(plain.MOMENTUM * running + (1 - plain.MOMENTUM) * now)
        h = tf.tanh((h - mean) * tf.math.rsqrt(var + NORM.epsilon) * scale + shift)
        if training and self.dropout:
            h = tf.nn.dropout(h, self.dropout)
        return h @ b + b_bias


def kernels(params):
    return params["a"], params["b"]


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(Net(), plain.X), kernels, NORM)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    plain.assert_right_with_dropout(network(Net(dropout=0.2), plain.X), kernels)


def own_loop():
    net = Net()
    velocity = [tf.zeros_like(leaf) for leaf in net.w]
    decays = np.asarray(plain.HYPER["decay"])
    weights = tf.sigmoid(np.asarray(plain.HYPER["weights"]))
    for x, y, index, _ in plain.batches():
        with tf.GradientTape() as tape:
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, net(x, training=True))
            decay = decays[0] * tf.reduce_sum(net.w[0] ** 2) + decays[1] * tf.reduce_sum(
                net.w[4] ** 2
            )
            loss = tf.reduce_mean(tf.gather(weights, index) * each) + decay
        gradients = tape.gradient(loss, net.w)
        velocity = [0.9 * v + g for v, g in zip(velocity, gradients, strict=True)]
        for leaf, v in zip(net.w, velocity, strict=True):
            leaf.assign_sub(float(plain.HYPER["lr"]) * v)
    x, y = plain.VALID
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, net(x, training=False))
    return tf.reduce_mean(each).numpy()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(Net(), plain.X), kernels, own_loop)


def test_moments_that_stop_a_gradient_are_refused():
    with pytest.raises(ValueError, match=r"moments/StopGradient: tf.nn.moments stops a gradient"):
        network(Net(moments=lambda x: tf.nn.moments(x, [0])), plain.X)


def test_moments_in_an_inner_function_are_refused():
    inner = tf.function(lambda x: tf.nn.moments(x, [0]))
    with pytest.raises(ValueError, match="stops a gradient"):
        network(Net(moments=inner), plain.X)


def test_layers_draw_different_dropout():
    class Twice(tf.Module):
        def __call__(self, x, training):
            return tf.stack([tf.nn.dropout(x, 0.5), tf.nn.dropout(x, 0.5)]) if training else x

    net = network(Twice(), np.ones((4, 8)))
    one, other = net.apply(*net.variables, np.ones((4, 8)), jax.random.key(0))[0]
    assert not np.array_equal(one, other)


def test_variables_of_one_name_stay_apart_and_values_go_back():
    class Unnamed(tf.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = tf.Variable(np.full(2, 2.0)), tf.Variable(np.full(2, 3.0))

        def __call__(self, x):
            return x * self.one + self.other

    net = network(Unnamed(), np.ones((4, 2)))
    assert len(net.params) == 2
    np.testing.assert_allclose(net.apply(*net.variables, np.ones((4, 2)), None)[0], 5.0)
