"""Stochastic bilevel methods as their papers have them, in plain JAX: opponents of `benchmarks.bilevel`.

All know the task's loss g(w, x; i) on training batch i and objective f(w, x; j) on validation batch j by heart,
and pay nothing for generality; q solves H q = ∂_w f. Each begins its carry with the outer variable x. Those whose
directions are recursive are in `recursive.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

Batch = tuple[Array, ...]


LARGE = 1e6
"""An outer rate at which what moves x is far larger than x."""


class Sides(NamedTuple):
    """Batch number i of the training and of the validation data, how many there are, and what is made small."""

    train: Callable[[Any], Batch]
    valid: Callable[[Any], Batch]
    numbers: tuple[int, int]
    loss: Callable[[Array, Array, Batch], Array]
    objective: Callable[[Array, Array, Batch], Array]


class Rates(NamedTuple):
    """Of w and q, and of the outer variable."""

    inner: float
    outer: float


class Peer(NamedTuple):
    """``start(x, w) -> carry`` and ``step(carry, key, rates) -> carry``, which begins with the outer variable.

    ``trained`` is where in the carry the parameters are that the loss alone has trained; ``rated`` whether rates
    make a difference.
    """

    start: Callable[[Array, Array], Any]
    step: Callable[[Any, Array, Rates], Any]
    trained: int = 1
    rated: bool = True


def under(
    peer: Peer,
    optim: Callable[[Any], optax.GradientTransformation],
    bounds: tuple[float, float] = (-12.0, 1.0),
) -> Peer:
    """The same method with another optimiser outside, which is given what moves x.

    x is kept within ``bounds``, as fast optimisers reach penalties at which the inner rates diverge.
    """

    def start(x: Array, w: Array) -> Any:
        begun = peer.start(x, w)
        return (*begun, optim(1.0).init(x))

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        *before, slots = carry
        # Small gradients are not to be lost in the rounding of x.
        after = peer.step(tuple(before), key, Rates(rates.inner, LARGE))
        updates, slots = optim(rates.outer).update((before[0] - after[0]) / LARGE, slots)
        moved = jnp.clip(optax.apply_updates(before[0], updates), *bounds)
        return (moved, *after[1:], slots)

    return Peer(start, step, peer.trained)


def products(sides: Sides, x: Array, w: Array, q: Array, batch: Batch) -> tuple[Array, ...]:
    """∂_w g, H q and (∂²_xw g) q."""
    slopes = jax.grad(sides.loss, argnums=(0, 1))
    (slope, _), (by_w, by_x) = jax.jvp(lambda w: slopes(w, x, batch), (w,), (q,))
    return slope, by_w, by_x


def seeds(sides: Sides, x: Array, w: Array, batch: Batch) -> tuple[Array, Array]:
    """∂_w f and ∂_x f; zeros that depend on nothing cost nothing once compiled."""
    return jax.grad(sides.objective, argnums=(0, 1))(w, x, batch)


def drawn(key: Array, sides: Sides) -> tuple[Batch, Batch]:
    """A batch of each side at random."""
    one, other = jax.random.split(key)
    i, j = (
        jax.random.randint(k, (), 0, n) for k, n in zip((one, other), sides.numbers, strict=True)
    )
    return sides.train(i), sides.valid(j)


def descended(sides: Sides, x: Array, w: Array, *, keys: Array, rate: float) -> Array:
    """SGD on the loss, one step for each key."""

    def one(w: Array, key: Array) -> tuple[Array, None]:
        return w - rate * jax.grad(sides.loss)(w, x, drawn(key, sides)[0]), None

    return jax.lax.scan(one, w, keys)[0]


def solved(
    sides: Sides, x: Array, w: Array, q: Array, *, seed: Array, keys: Array, rate: float
) -> Array:
    """SGD on q's linear system, one step for each key."""

    def one(q: Array, key: Array) -> tuple[Array, None]:
        batch, _ = drawn(key, sides)
        return q + rate * (seed - products(sides, x, w, q, batch)[1]), None

    return jax.lax.scan(one, q, keys)[0]


def soba(sides: Sides) -> Peer:
    """arXiv 2201.13409, algorithm 1 with the directions of (2): all three move at once."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, q = carry
        batch, unseen = drawn(key, sides)
        slope, by_w, by_x = products(sides, x, w, q, batch)
        seed, direct = seeds(sides, x, w, unseen)
        x = x - rates.outer * (direct - by_x)
        return x, w - rates.inner * slope, q + rates.inner * (seed - by_w)

    return Peer(lambda x, w: (x, w, jnp.zeros_like(w)), step)


class Tables(NamedTuple):
    """What each batch gave when it was last seen, and the means over batches."""

    rows: tuple[Array, ...]
    means: tuple[Array, ...]


def saba(sides: Sides) -> Peer:
    """The same paper, section 3.2: each direction by SAGA, from a table with a row for each batch."""
    train, valid = sides.numbers

    def start(x: Array, w: Array) -> Any:
        q, every = jnp.zeros_like(w), jnp.arange(train)
        rows = jax.lax.map(lambda i: products(sides, x, w, q, sides.train(i)), every)
        others = jax.lax.map(lambda j: seeds(sides, x, w, sides.valid(j)), jnp.arange(valid))
        rows = (*rows, *others)
        return x, w, q, Tables(rows, tuple(jnp.mean(row, axis=0) for row in rows))

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, q, tables = carry
        one, other = jax.random.split(key)
        i, j = jax.random.randint(one, (), 0, train), jax.random.randint(other, (), 0, valid)
        newest = (
            *products(sides, x, w, q, sides.train(i)),
            *seeds(sides, x, w, sides.valid(j)),
        )
        where, counts = (i, i, i, j, j), (train, train, train, valid, valid)
        changes = [new - rows[k] for new, rows, k in zip(newest, tables.rows, where, strict=True)]
        found = [change + mean for change, mean in zip(changes, tables.means, strict=True)]
        rows = tuple(r.at[k].set(n) for r, k, n in zip(tables.rows, where, newest, strict=True))
        means = tuple(m + c / n for m, c, n in zip(tables.means, changes, counts, strict=True))
        slope, by_w, by_x, seed, direct = found
        x, w = x - rates.outer * (direct - by_x), w - rates.inner * slope
        return x, w, q + rates.inner * (seed - by_w), Tables(rows, means)

    return Peer(start, step)


def stocbio(sides: Sides, *, steps: int = 10, terms: int = 10) -> Peer:
    """arXiv 2010.07962: steps of SGD, then a Neumann series of independent batches from zero."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w = carry
        keys = jax.random.split(key, steps + terms + 1)
        w = descended(sides, x, w, keys=keys[:steps], rate=rates.inner)
        batch, unseen = drawn(keys[-1], sides)
        (seed, direct), zero = seeds(sides, x, w, unseen), jnp.zeros_like(w)
        q = solved(sides, x, w, zero, seed=seed, keys=keys[steps:-1], rate=rates.inner)
        by_x = products(sides, x, w, q, batch)[2]
        return x - rates.outer * (direct - by_x), w

    return Peer(lambda x, w: (x, w), step)


def amigo(sides: Sides, *, steps: int = 10, terms: int = 10) -> Peer:
    """arXiv 2111.14580: the same with q going on from where it was."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, q = carry
        keys = jax.random.split(key, steps + terms + 1)
        w = descended(sides, x, w, keys=keys[:steps], rate=rates.inner)
        batch, unseen = drawn(keys[-1], sides)
        seed, direct = seeds(sides, x, w, unseen)
        q = solved(sides, x, w, q, seed=seed, keys=keys[steps:-1], rate=rates.inner)
        by_x = products(sides, x, w, q, batch)[2]
        return x - rates.outer * (direct - by_x), w, q

    return Peer(lambda x, w: (x, w, jnp.zeros_like(w)), step)


def f2sa(sides: Sides, *, steps: int = 10, penalty: float = 10.0) -> Peer:
    """arXiv 2301.10945, algorithm 1 with a fixed penalty σ: y on f + σ g, z on g."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, y, z = carry

        def both(at: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
            (y, z), (batch, unseen) = at, drawn(key, sides)
            pull = seeds(sides, x, y, unseen)[0] / penalty
            y = y - rates.inner * (jax.grad(sides.loss)(y, x, batch) + pull)
            return (y, z - rates.inner * jax.grad(sides.loss)(z, x, batch)), None

        (y, z), _ = jax.lax.scan(both, (y, z), jax.random.split(key, steps))
        batch, unseen = drawn(jax.random.fold_in(key, steps), sides)
        direct = seeds(sides, x, y, unseen)[1]
        near, far = (jax.grad(sides.loss, argnums=1)(at, x, batch) for at in (y, z))
        return x - rates.outer * (direct + penalty * (near - far)), y, z

    return Peer(lambda x, w: (x, w, w), step, trained=2)


def bome(sides: Sides, *, steps: int = 10, barrier: float = 0.5) -> Peer:
    """arXiv 2209.08709, algorithm 1 with φ = η ‖∇q‖²."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w = carry
        keys = jax.random.split(key, steps + 1)
        z = descended(sides, x, w, keys=keys[:-1], rate=rates.inner)
        batch, unseen = drawn(keys[-1], sides)
        by_w, near = jax.grad(sides.loss, argnums=(0, 1))(w, x, batch)
        by_x = near - jax.grad(sides.loss, argnums=1)(z, x, batch)
        seed, direct = seeds(sides, x, w, unseen)
        squared = jnp.sum(by_w**2) + jnp.sum(by_x**2)
        share = (jnp.sum(seed * by_w) + jnp.sum(direct * by_x)) / jnp.where(squared > 0, squared, 1)
        multiplier = jnp.maximum(barrier - share, 0)
        w = w - rates.inner * (seed + multiplier * by_w)
        return x - rates.outer * (direct + multiplier * by_x), w

    return Peer(lambda x, w: (x, w), step)
