"""Stochastic bilevel methods as their papers have them, in plain JAX: opponents of `benchmarks.bilevel`.

All know the penalised logistic regression of `benchmarks.bilevel` by heart, and pay nothing for generality:
g(w, x; i) is its loss on batch i, f(w; j) the validation loss on batch j, and q solves H q = ∂_w f.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Batch = tuple[Array, Array]


class Sides(NamedTuple):
    """Batch number i of the training and of the validation data, and how many there are."""

    train: Callable[[Any], Batch]
    valid: Callable[[Any], Batch]
    numbers: tuple[int, int]


class Rates(NamedTuple):
    """Of w and q, and of the outer variable."""

    inner: float
    outer: float


class Peer(NamedTuple):
    """``start(size) -> carry`` and ``step(carry, key, rates) -> carry``, which begins with the outer variable."""

    start: Callable[[int], Any]
    step: Callable[[Any, Array, Rates], Any]


def logistic(w: Array, batch: Batch) -> Array:
    return jnp.mean(jax.nn.softplus(-batch[1] * (batch[0] @ w)))


def penalised(w: Array, x: Array, batch: Batch) -> Array:
    return logistic(w, batch) + 0.5 * jnp.sum(jnp.exp(x) * w**2)


def products(w: Array, x: Array, q: Array, batch: Batch) -> tuple[Array, Array, Array]:
    """∂_w g, H q and (∂²_xw g) q."""
    slopes = jax.grad(penalised, argnums=(0, 1))
    at = lambda w: slopes(w, x, batch)  # noqa: E731
    (slope, _), (by_w, by_x) = jax.jvp(at, (w,), (q,))
    return slope, by_w, by_x


def numbers(key: Array, sides: Sides) -> tuple[Array, Array]:
    one, other = jax.random.split(key)
    first, second = sides.numbers
    return jax.random.randint(one, (), 0, first), jax.random.randint(other, (), 0, second)


def soba(sides: Sides) -> Peer:
    """arXiv 2201.13409, algorithm 1 with the directions of (2): all three move at once."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, q = carry
        i, j = numbers(key, sides)
        slope, by_w, by_x = products(w, x, q, sides.train(i))
        seed = jax.grad(logistic)(w, sides.valid(j))
        return x + rates.outer * by_x, w - rates.inner * slope, q + rates.inner * (seed - by_w)

    return Peer(lambda size: (jnp.zeros(size),) * 3, step)


class Tables(NamedTuple):
    """What each batch gave when it was last seen, and the means over batches."""

    rows: tuple[Array, ...]
    means: tuple[Array, ...]


def saba(sides: Sides) -> Peer:
    """The same paper, section 3.2: each direction by SAGA, from a table with a row for each batch."""
    train, valid = sides.numbers

    def start(size: int) -> Any:
        zeros = jnp.zeros(size)
        rows = (*(jnp.zeros((train, size)),) * 3, jnp.zeros((valid, size)))
        return zeros, zeros, zeros, Tables(rows, (zeros,) * 4)

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, q, tables = carry
        i, j = numbers(key, sides)
        seed = jax.grad(logistic)(w, sides.valid(j))
        newest = (*products(w, x, q, sides.train(i)), seed)
        where, counts = (i, i, i, j), (train, train, train, valid)
        changes = [new - rows[k] for new, rows, k in zip(newest, tables.rows, where, strict=True)]
        found = [change + mean for change, mean in zip(changes, tables.means, strict=True)]
        rows = tuple(r.at[k].set(n) for r, k, n in zip(tables.rows, where, newest, strict=True))
        means = tuple(m + c / n for m, c, n in zip(tables.means, changes, counts, strict=True))
        slope, by_w, by_x, seed = found
        x, w = x + rates.outer * by_x, w - rates.inner * slope
        return x, w, q + rates.inner * (seed - by_w), Tables(rows, means)

    return Peer(start, step)


def stocbio(sides: Sides, *, steps: int = 10, terms: int = 10) -> Peer:
    """arXiv 2010.07962: steps of SGD, then a Neumann series of independent batches from zero."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w = carry
        keys = jax.random.split(key, steps + terms + 1)

        def descend(w: Array, key: Array) -> tuple[Array, None]:
            i, _ = numbers(key, sides)
            return w - rates.inner * jax.grad(penalised)(w, x, sides.train(i)), None

        w, _ = jax.lax.scan(descend, w, keys[:steps])
        i, j = numbers(keys[-1], sides)
        seed = jax.grad(logistic)(w, sides.valid(j))

        def term(q: Array, key: Array) -> tuple[Array, None]:
            k, _ = numbers(key, sides)
            return q + rates.inner * (seed - products(w, x, q, sides.train(k))[1]), None

        q, _ = jax.lax.scan(term, jnp.zeros_like(w), keys[steps:-1])
        return x + rates.outer * products(w, x, q, sides.train(i))[2], w

    return Peer(lambda size: (jnp.zeros(size),) * 2, step)
