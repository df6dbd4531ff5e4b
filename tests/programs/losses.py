"""Inner losses of many kinds: whatever kernels a model may run."""

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(1)


def array(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


def definite(count, side):
    square = array(count, side, side)
    return square @ square.transpose(0, 2, 1) + side * jnp.eye(side, dtype=square.dtype)


def of_rows(function):
    """A loss of the products of each row of the data with a vector of weights."""
    return array(2048), array(8, 2048), lambda w, x: function(x * w)


def convolved(w, x):
    for window in w:
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, window, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x


def recurrent(w, x):
    step = lambda state, row: (jnp.tanh(row @ w[0] + state @ w[1]), None)  # noqa: E731
    return jax.lax.scan(step, jnp.zeros((16, 32), jnp.float32), x)[0]


def attention(w, x):
    query, key, value = (jnp.reshape(x @ one, (4, 16, 4, 8)) for one in w[:3])
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", query, key))
    return jnp.einsum("bhts,bshd->bthd", weights, value).reshape(4, 16, 32) @ w[3]


def normalised(w, x):
    y = x @ w[0]
    y = (y - y.mean(1, keepdims=True)) / jnp.sqrt(y.var(1, keepdims=True) + 1e-5)
    return jax.nn.gelu(y) @ w[1]


def dropped(w, x):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, (64, 32))
    return (jnp.tanh(x @ w[0]) * keep) @ w[1]


def embedded(w, index):
    return jnp.tanh(w[0][index].sum(1) @ w[1])


def rematerialised(w, x):
    block = jax.checkpoint(lambda w, x: x + jnp.tanh(x @ w))
    return jax.lax.scan(lambda x, w: (block(w, x), None), x, jnp.stack(w))[0]


def network(w, x):
    return jnp.tanh(x @ w[0]) @ w[1]


def of_matrices(function):
    """A loss of definite matrices with a learned diagonal."""
    return array(16), definite(4, 16), lambda w, x: function(x + jnp.diag(w**2))


LAYERS = [array(32, 32, scale=0.2), array(32, 32, scale=0.2)]

# The parameters, the data, and what is computed of both.
LOSSES = {
    "fft": of_rows(lambda y: jnp.abs(jnp.fft.rfft(y)) ** 2),
    "fft in two dimensions": (
        array(16, 16),
        array(8, 16, 16),
        lambda w, x: jnp.abs(jnp.fft.ifft2(jnp.fft.fft2(x) * w)),
    ),
    "sort": of_rows(lambda y: jnp.sort(y, axis=1)[:, :1024]),
    "top k": of_rows(lambda y: jax.lax.top_k(y, 50)[0]),
    "median": of_rows(lambda y: jnp.median(y, axis=1)),
    "max": of_rows(lambda y: jnp.max(y, axis=1)),
    "cumulative": of_rows(lambda y: jnp.tanh(jnp.cumsum(y, axis=1))),
    "logsumexp": of_rows(lambda y: jax.nn.logsumexp(y, axis=1)),
    "cholesky": of_matrices(jnp.linalg.cholesky),
    "eigh": of_matrices(lambda m: jnp.linalg.eigh(m)[0]),
    "solve": of_matrices(lambda m: jnp.linalg.solve(m, jnp.ones((16, 1), m.dtype))),
    "svd": (
        array(16),
        array(4, 24, 16),
        lambda w, x: jnp.linalg.svd(x * w, full_matrices=False)[1],
    ),
    "qr": (array(16), array(4, 24, 16), lambda w, x: jnp.linalg.qr(x * w)[1]),
    "convolution": ([array(3, 3, 3, 8), array(3, 3, 8, 8)], array(4, 16, 16, 3), convolved),
    "recurrence": (LAYERS, array(12, 16, 32), recurrent),
    "attention": ([*LAYERS, *LAYERS], array(4, 16, 32), attention),
    "normalisation": (LAYERS, array(64, 32), normalised),
    "dropout": (LAYERS, array(64, 32), dropped),
    "embedding": (
        [array(300, 32), array(32, 10)],
        jnp.asarray(RNG.integers(0, 300, (16, 8))),
        embedded,
    ),
    "rematerialised": (LAYERS, array(64, 32), rematerialised),
    "distances": (
        array(100, 8),
        array(50, 8),
        lambda w, x: jnp.exp(-jnp.sum((x[:, None] - w[None]) ** 2, -1)),
    ),
    "network": ([array(30, 40, scale=0.2), array(40, 10, scale=0.2)], array(32, 30), network),
    "wide network": ([array(100, 200, scale=0.1), array(200, 10)], array(16, 100), network),
}
