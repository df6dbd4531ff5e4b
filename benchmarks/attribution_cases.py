"""What the influence of examples is tried on: digits in dense networks, and windows of text in a transformer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.rivals import Sides
from rfho.attribution import weighted
from rfho.datasets import load_mnist, load_tiny_shakespeare
from rfho.experiments.parts.transformer import Losses, Transformer

WINDOW = 256
"""Characters of a piece of text."""


class Scale(NamedTuple):
    """How much of it is done: ``runs`` are averaged on halves, at most 16 where training is gentler."""

    examples: int
    queries: int
    subsets: int
    runs: int
    retrain: int


class Gentler(NamedTuple):
    """Training at a smaller weight of every example, or at a fraction of the rate."""

    weight: float = 1.0
    slower: float = 1.0

    def __str__(self) -> str:
        return f"weight {self.weight:g}" if self.slower == 1 else f"rate / {self.slower:g}"


class Case(NamedTuple):
    """One model, and how it is trained.

    Attributes:
        name: as the table has it.
        sides: losses, and the examples trained on and asked about.
        epochs: of training.
        batch: examples in a step.
        optim: by the number that divides the rate.
        init: parameters to start from.
        gentler: where a derivative is taken beside weight 1 and this rate.
        averaged: which of them is averaged over other orders.
        similar: of each pair of query and example, above 0 if the example looks as if it would help.
    """

    name: str
    sides: Sides
    epochs: int
    batch: int
    optim: Callable[[float], Any]
    init: Any
    gentler: tuple[Gentler, ...]
    averaged: Gentler
    similar: Callable[[], np.ndarray]

    def problem(self, slower: float = 1.0) -> rfho.Problem:
        """Training on all examples; the objective is the mean over the queries."""
        loss = weighted(self.sides.each)
        dynamics = rfho.Descent(loss, lambda hyper: self.optim(slower), self.init)
        train = rfho.Stream(self.sides.train, self.batch, key=0)
        examples = jax.tree.leaves(self.sides.train)[0].shape[0]
        return rfho.Problem(
            dynamics, loss, train, self.sides.valid, self.epochs * (examples // self.batch)
        )


class Digits(eqx.Module):
    """Cross-entropies of a network of dense layers."""

    activation: Callable[[jax.Array], jax.Array] = eqx.field(static=True)

    def __call__(self, params: Any, hyper: Any, batch: Any) -> jax.Array:
        logits = self.logits(params, batch)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    def logits(self, params: Any, batch: Any) -> jax.Array:
        x = batch[0]
        *layers, (weights, bias) = params
        for a, b in layers:
            x = self.activation(x @ a + b)
        return x @ weights + bias

    def said(self, params: Any, batch: Any) -> str:
        """How good the model is."""
        right = jnp.mean(jnp.argmax(self.logits(params, batch), axis=1) == batch[1])
        return f"{float(right):.0%} of queries right"


class Model(NamedTuple):
    """Layers of a network of digits, what stands between them, and the size of a pixel.

    Standardised pixels (1 / 0.3081) are what others train on; there the rate is at the edge of what is stable.
    """

    name: str
    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    pixel: float = 1 / 0.3081


_SIZES = (784, 128, 64, 10)
MODELS = (
    Model("softmax", (784, 10), jax.nn.relu),
    Model("softmax, pixels in [0, 1]", (784, 10), jax.nn.relu, 1.0),
    Model("network, GELU, pixels in [0, 1]", _SIZES, jax.nn.gelu, 1.0),
    Model("network, GELU", _SIZES, jax.nn.gelu),
    Model("network, ReLU", _SIZES, jax.nn.relu),
)


def digits(model: Model, scale: Scale, epochs: int) -> Case:
    """The first digits of MNIST; queries are losses on the first of its test set."""
    train, valid = (
        _pixels(part, count, model.pixel)
        for part, count in zip(load_mnist(), scale[:2], strict=True)
    )
    rng = np.random.default_rng(0)

    def layer(i: int, o: int) -> tuple[jax.Array, jax.Array]:
        draw = lambda *shape: jnp.asarray(rng.uniform(-1, 1, shape) / np.sqrt(i), jnp.float32)  # noqa: E731
        return draw(i, o), draw(o)

    def similar() -> np.ndarray:
        same = np.asarray(valid[1])[:, None] == np.asarray(train[1])
        return _cosines(valid[0], train[0]) * np.where(same, 1.0, -1.0)

    return Case(
        model.name,
        Sides(Digits(model.activation), train, valid),
        epochs,
        64,
        lambda slower: optax.sgd(0.01 / slower, momentum=0.9),
        [layer(i, o) for i, o in zip(model.sizes[:-1], model.sizes[1:], strict=True)],
        tuple(Gentler(weight=weight) for weight in (1 / 2, 1 / 4, 1 / 8, 1 / 16)),
        Gentler(weight=1 / 8),
        similar,
    )


def _pixels(part: Any, count: int, size: float) -> tuple[jax.Array, jax.Array]:
    """Centred images as rows, and their labels."""
    x = np.asarray(part.images[:count], np.float32).reshape(count, -1)
    return jnp.asarray((x - 0.1307) * size), jnp.asarray(part.labels[:count], jnp.int32)


class Windows(eqx.Module):
    """The mean cross-entropy of a character, window by window."""

    losses: Losses

    def __call__(self, params: Any, hyper: Any, windows: jax.Array) -> jax.Array:
        return self.losses(params, windows)

    def logits(self, params: Any, windows: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(params, self.losses.rest))(windows[:, :-1])

    def said(self, params: Any, windows: jax.Array) -> str:
        """How good the model is."""
        return f"{float(jnp.mean(self(params, None, windows))) / np.log(2):.2f} bits for a character of a query"


def text(scale: Scale, epochs: int, rate: float) -> Case:
    """Tiny Shakespeare in windows, its first nine tenths to learn from and the rest to ask about."""
    whole = load_tiny_shakespeare()
    cut = len(whole.codes) * 9 // 10
    train, valid = (_windows(part) for part in (whole.codes[:cut], whole.codes[cut:]))
    rng = np.random.default_rng(0)
    train = train[: scale.examples]
    valid = valid[rng.choice(len(valid), min(scale.queries, len(valid)), replace=False)]
    model = Transformer(
        len(whole.alphabet), WINDOW - 1, width=32, heads=2, layers=1, key=jax.random.key(0)
    )
    init, rest = eqx.partition(model, eqx.is_array)

    def similar() -> np.ndarray:
        pairs = lambda windows: np.stack([_pairs(w, len(whole.alphabet)) for w in windows])  # noqa: E731
        return _cosines(pairs(np.asarray(valid)), pairs(np.asarray(train)))

    return Case(
        f"transformer, rate {rate:g}",
        Sides(
            Windows(Losses(rest, WINDOW)),
            jnp.asarray(train),
            jnp.asarray(valid),
            piece=16,
            curved=8,
        ),
        epochs,
        16,
        lambda slower: rfho.optim.adam(rate / slower, eps=1e-4),
        init,
        (),
        Gentler(slower=4),
        similar,
    )


def _windows(codes: np.ndarray) -> np.ndarray:
    return codes[: len(codes) // WINDOW * WINDOW].reshape(-1, WINDOW)


def _pairs(window: np.ndarray, letters: int) -> np.ndarray:
    """How often each pair of characters stands in it."""
    return np.bincount(window[:-1] * letters + window[1:], minlength=letters**2)


def _cosines(left: Any, right: Any) -> np.ndarray:
    left, right = (np.asarray(side, np.float32) for side in (left, right))
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    return unit(left) @ unit(right).T
