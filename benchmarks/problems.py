"""The problems that every program is timed on: fixed seeds, synthetic images with class structure.

P1 softmax regression with one weight per example; P2 a tanh network under momentum; P3 a small convolutional
network under Adam; P4 a transformer under AdamW; P5 (in `benchmarks.implicit`) an implicit problem. The data
come from NumPy, so that programs in other frameworks read the same numbers.

Weights of P1, P2 and P5 have the shape (outputs, inputs): on a CPU, XLA is slow at the transposed product of many
examples with few outputs, xᵀ g, which the gradient needs for (inputs, outputs).
"""

import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from rfho.domains.space import Rest


class Benchmark(NamedTuple):
    """One problem as rfho sees it.

    `hyper` is where it is differentiated.
    """

    name: str
    problem: rfho.Problem
    hyper: Any


def images(
    count: int, seed: int, side: int = 28, classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1] with class structure: smooth class templates, shifted, scaled and noisy."""
    rng = np.random.default_rng(20170612)
    templates = rng.random((classes, 7, 7)).repeat(side // 7, axis=1).repeat(side // 7, axis=2)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    contrast = rng.uniform(0.5, 1.0, (count, 1, 1))
    noise = rng.normal(0.0, 0.25, (count, side, side))
    shifts = rng.integers(-2, 3, (count, 2))
    shifted = np.stack(
        [np.roll(templates[k], tuple(s), (0, 1)) for k, s in zip(labels, shifts, strict=True)]
    )
    pictures = np.clip(contrast * shifted + noise, 0.0, 1.0)
    return pictures.astype(np.float32), labels.astype(np.int32)


def softmax_regression(horizon: int = 200, examples: int = 5000) -> Benchmark:
    """P1: full-batch gradient descent, one weight per training example through a sigmoid."""
    (x, y), (xv, yv) = _flat(examples, seed=1), _flat(examples, seed=2)

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return jnp.mean(jax.nn.sigmoid(hyper) * _cross_entropy(_linear(params, batch[0]), batch[1]))

    def objective(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return jnp.mean(_cross_entropy(_linear(params, batch[0]), batch[1]))

    init = {"w": jnp.zeros((10, x.shape[1]), x.dtype), "b": jnp.zeros(10, x.dtype)}
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), init)
    problem = rfho.Problem(dynamics, objective, (x, y), (xv, yv), horizon)
    return Benchmark("P1", problem, jnp.zeros(examples, x.dtype))


def tanh_network(horizon: int = 200, rates: int = 1, size: int = 100) -> Benchmark:
    """P2: 784-300-300-10, minibatches by a fixed index sequence, SGD with momentum.

    With ``rates`` > 1 the rate is a piecewise schedule of that many values.
    """
    (x, y), (xv, yv) = _flat(5000, seed=1), _flat(5000, seed=2)
    index = np.random.default_rng(3).integers(0, len(x), (max(horizon, 200), size)).astype(np.int32)
    index = jnp.asarray(index)

    def logits(params: Any, x: jax.Array) -> jax.Array:
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w.T + b)
        return x @ params[-1][0].T + params[-1][1]

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        penalty = sum(jnp.sum(w**2) for w, _ in params)
        fit = jnp.mean(_cross_entropy(logits(params, batch[0]), batch[1]))
        return fit + 0.5 * hyper["l2"] * penalty

    def objective(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return jnp.mean(_cross_entropy(logits(params, batch[0]), batch[1]))

    def optim(hyper: Any) -> optax.GradientTransformation:
        rate = jnp.exp(hyper["log_rate"])
        rate = rate if rates == 1 else rfho.schedules.piecewise(rate, horizon)
        return optax.sgd(rate, momentum=hyper["momentum"])

    rng = np.random.default_rng(4)
    sizes = (784, 300, 300, 10)
    init = [
        (jnp.asarray(rng.normal(0, 1 / np.sqrt(m), (m, n)).T, x.dtype), jnp.zeros(n, x.dtype))
        for m, n in itertools.pairwise(sizes)
    ]
    log_rate = jnp.full((rates,) if rates > 1 else (), jnp.log(0.05), x.dtype)
    hyper = {
        "log_rate": log_rate,
        "momentum": jnp.asarray(0.9, x.dtype),
        "l2": jnp.asarray(1e-4, x.dtype),
    }
    train = rfho.Indexed((x, y), index)
    problem = rfho.Problem(rfho.Descent(loss, optim, init), objective, train, (xv, yv), horizon)
    return Benchmark("P2", problem, hyper)


def as_heavy_ball(benchmark: Benchmark) -> Benchmark:
    """The problem P2 of one rate, with dynamics whose steps can be undone."""
    problem = benchmark.problem
    dynamics = rfho.HeavyBall(
        problem.dynamics.loss,
        rate=lambda hyper, t: jnp.exp(hyper["log_rate"]),
        momentum=lambda hyper, t: hyper["momentum"],
        init=problem.init(benchmark.hyper).params,
    )
    changed = eqx.tree_at(lambda p: p.dynamics, problem, dynamics)
    return benchmark._replace(problem=changed)


def of_rate_alone(benchmark: Benchmark) -> Benchmark:
    """The problem P2 with its rate as the only hyperparameter."""
    rate = dict.fromkeys(benchmark.hyper) | {"log_rate": benchmark.hyper["log_rate"]}
    fixed = benchmark.hyper | {"log_rate": None}
    return benchmark._replace(problem=benchmark.problem.at(0, Rest.of(fixed)), hyper=rate)


def small_network(horizon: int, rates: int = 1) -> Benchmark:
    """A network of the kind of P2, small enough for long horizons: 66-32-10 on subsampled images."""
    x, y = images(1000, seed=1, side=14)
    x, y = jnp.asarray(x.reshape(1000, -1)[:, ::3], jnp.result_type(float)), jnp.asarray(y)
    stream = rfho.Stream((x[:500], y[:500]), size=50, key=0)

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        hidden = jnp.tanh(batch[0] @ params["w1"])
        return jnp.mean(_cross_entropy(hidden @ params["w2"], batch[1]))

    def optim(hyper: Any) -> optax.GradientTransformation:
        rate = jnp.exp(hyper)
        return optax.sgd(
            rate if rates == 1 else rfho.schedules.piecewise(rate, horizon), momentum=0.9
        )

    rng = np.random.default_rng(4)
    shapes = {"w1": (x.shape[1], 32), "w2": (32, 10)}
    init = {
        name: jnp.asarray(rng.normal(0, shape[0] ** -0.5, shape), x.dtype)
        for name, shape in shapes.items()
    }
    valid = (x[500:], y[500:])
    problem = rfho.Problem(rfho.Descent(loss, optim, init), loss, stream, valid, horizon)
    hyper = jnp.full((rates,) if rates > 1 else (), np.log(0.05), x.dtype)
    return Benchmark("small", problem, hyper)


def convolutional_network(horizon: int = 50, size: int = 64) -> Benchmark:
    """P3: 16 and 32 channels by patches and a dot, Adam, a rate per layer and a weight per example."""
    examples = horizon * size
    (x, y), (xv, yv) = images(examples, seed=1), images(1000, seed=2)
    x, xv = (jnp.asarray(z, jnp.result_type(float))[..., None] for z in (x, xv))
    weights = jnp.arange(examples).reshape(horizon, size)

    def patches(x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [x[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]
        return jnp.stack(parts, axis=3).reshape(n, h // 2, w // 2, 9 * c)

    def logits(params: Any, x: jax.Array) -> jax.Array:
        for name in ("conv1", "conv2"):
            w, b = params[name]
            x = jax.nn.relu(patches(x) @ w + b)
        w, b = params["dense"]
        return x.reshape(len(x), -1) @ w + b

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        x, y, index = batch
        return jnp.mean(
            jax.nn.sigmoid(hyper["weights"][index]) * _cross_entropy(logits(params, x), y)
        )

    def objective(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return jnp.mean(_cross_entropy(logits(params, batch[0]), batch[1]))

    def optim(hyper: Any) -> optax.GradientTransformation:
        adam = optax.scale_by_adam(eps_root=1e-8)
        rates = {name: jnp.exp(rate) for name, rate in hyper["log_rates"].items()}
        return optax.chain(adam, _scale_by_layer(rates))

    rng = np.random.default_rng(4)
    shapes = {"conv1": (9, 16), "conv2": (144, 32), "dense": (7 * 7 * 32, 10)}
    init = {
        name: (jnp.asarray(rng.normal(0, np.sqrt(2 / m), (m, n)), x.dtype), jnp.zeros(n, x.dtype))
        for name, (m, n) in shapes.items()
    }
    hyper = {
        "log_rates": {name: jnp.asarray(np.log(1e-3), x.dtype) for name in shapes},
        "weights": jnp.zeros(examples, x.dtype),
    }
    train = rfho.Indexed((x, jnp.asarray(y), jnp.arange(examples)), weights)
    problem = rfho.Problem(
        rfho.Descent(loss, optim, init), objective, train, (xv, jnp.asarray(yv)), horizon
    )
    return Benchmark("P3", problem, hyper)


def transformer(horizon: int = 50, size: int = 8, layers: int = 4, width: int = 128) -> Benchmark:
    """P4: about 0.9 million parameters, context 64, 256 symbols, AdamW, a weight per sequence."""
    context, symbols, heads = 64, 256, 4
    rng = np.random.default_rng(1)
    text = _symbols(rng, horizon * size + 64, context + 1, symbols)
    train_text, valid_text = jnp.asarray(text[:-64]), jnp.asarray(text[-64:])
    index = jnp.arange(horizon * size).reshape(horizon, size)

    def block(layer: Any, x: jax.Array) -> jax.Array:
        n, t, d = x.shape
        q, k, v = jnp.split(_norm(x, layer["norm1"]) @ layer["qkv"], 3, axis=-1)
        q, k, v = (z.reshape(n, t, heads, d // heads) for z in (q, k, v))
        scores = jnp.einsum("nthd,nshd->nhts", q, k) / np.sqrt(d // heads)
        scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e9)
        mixed = jnp.einsum("nhts,nshd->nthd", jax.nn.softmax(scores), v).reshape(n, t, d)
        x = x + mixed @ layer["out"]
        return x + jax.nn.gelu(_norm(x, layer["norm2"]) @ layer["up"]) @ layer["down"]

    def losses(params: Any, tokens: jax.Array) -> jax.Array:
        x = params["embed"][tokens[:, :-1]] + params["place"]
        for layer in params["layers"]:
            x = block(layer, x)
        logits = _norm(x, params["norm"]) @ params["read"]
        return jnp.mean(_cross_entropy(logits, tokens[:, 1:]), axis=-1)

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        tokens, index = batch
        return jnp.mean(jax.nn.sigmoid(hyper[index]) * losses(params, tokens))

    def objective(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return jnp.mean(losses(params, batch))

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(
            rng.normal(0, 0.02 if len(shape) == 1 else shape[0] ** -0.5, shape), jnp.float32
        )

    ones = lambda: (jnp.ones(width), jnp.zeros(width))  # noqa: E731
    init = {
        "embed": normal(symbols, width),
        "place": normal(context, width),
        "norm": ones(),
        "read": normal(width, symbols),
        "layers": [
            {
                "norm1": ones(),
                "norm2": ones(),
                "qkv": normal(width, 3 * width),
                "out": normal(width, width),
                "up": normal(width, 4 * width),
                "down": normal(4 * width, width),
            }
            for _ in range(layers)
        ],
    }
    init = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), init)
    train = rfho.Indexed((train_text, jnp.arange(horizon * size)), index)
    optim = lambda hyper: optax.adamw(1e-3, eps_root=1e-8, weight_decay=1e-2)  # noqa: E731
    # As much validation text at a time as a step of training sees.
    objective = rfho.in_chunks(objective, size)
    problem = rfho.Problem(rfho.Descent(loss, optim, init), objective, train, valid_text, horizon)
    return Benchmark("P4", problem, jnp.zeros(horizon * size))


def _flat(count: int, seed: int) -> tuple[jax.Array, jax.Array]:
    x, y = images(count, seed)
    return jnp.asarray(x.reshape(count, -1), jnp.result_type(float)), jnp.asarray(y)


def _linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"].T + params["b"]


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _norm(x: jax.Array, scale_and_shift: Any) -> jax.Array:
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale_and_shift[0] + scale_and_shift[1]


def _scale_by_layer(rates: dict[str, jax.Array]) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        scaled = {
            name: jax.tree.map(lambda leaf, rate=rate: -rate * leaf, updates[name])
            for name, rate in rates.items()
        }
        return scaled, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _symbols(rng: np.random.Generator, count: int, length: int, symbols: int) -> np.ndarray:
    # A random Markov chain with eight successors for each symbol.
    successors = rng.integers(0, symbols, (symbols, 8))
    text = np.empty((count, length), np.int32)
    text[:, 0] = rng.integers(0, symbols, count)
    for t in range(1, length):
        text[:, t] = successors[text[:, t - 1], rng.integers(0, 8, count)]
    return text
