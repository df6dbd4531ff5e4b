"""Stochastic bilevel methods whose directions correct themselves on the same batch: MRBO, SUSTAIN, FSLA."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.bilevel.peers import (
    Batch,
    Peer,
    Rates,
    Sides,
    amigo,
    bome,
    drawn,
    f2sa,
    products,
    saba,
    seeds,
    soba,
    solved,
    stocbio,
)


def recursive(now: Array, before: Array, last: Array, share: Array) -> Array:
    """STORM: the newest direction, and the last one corrected on the same batch."""
    return now + (1 - share) * (last - before)


Solve = Callable[[Sides, Array, Array, Array, Array, float], Array]
"""(sides, x, w, ∂_w f, key, rate) to q."""


def doubled(sides: Sides, solve: Solve, share: float) -> Peer:
    """One step of w and of x, both directions by STORM, q anew at every step."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, (x0, w0, of_w, of_x, first) = carry
        one, other = jax.random.split(key)
        batch, unseen = drawn(one, sides)

        def directions(x: Array, w: Array) -> tuple[Array, Array]:
            seed, direct = seeds(sides, x, w, unseen)
            q = solve(sides, x, w, seed, other, rates.inner)
            slope, _, by_x = products(sides, x, w, q, batch)
            return slope, direct - by_x

        now, before = directions(x, w), directions(x0, w0)
        part = jnp.where(first, 1.0, share)
        of_w, of_x = (
            recursive(n, b, last, part)
            for n, b, last in zip(now, before, (of_w, of_x), strict=True)
        )
        memory = (x, w, of_w, of_x, jnp.array(False))
        return x - rates.outer * of_x, w - rates.inner * of_w, memory

    return Peer(lambda x, w: (x, w, (x, w, 0 * w, 0 * x, jnp.array(True))), step)


def mrbo(sides: Sides, *, terms: int = 10, share: float = 0.1) -> Peer:
    """arXiv 2106.04692, algorithm 1: a Neumann series from zero."""

    def solve(sides: Sides, x: Array, w: Array, seed: Array, key: Array, rate: float) -> Array:
        zero, keys = jnp.zeros_like(w), jax.random.split(key, terms)
        return solved(sides, x, w, zero, seed=seed, keys=keys, rate=rate)

    return doubled(sides, solve, share)


def sustain(sides: Sides, *, terms: int = 10, share: float = 0.1) -> Peer:
    """arXiv 2102.07367, algorithm 1: of the Neumann series one term at random, times their number."""

    def solve(sides: Sides, x: Array, w: Array, seed: Array, key: Array, rate: float) -> Array:
        count = jax.random.randint(key, (), 0, terms)

        def factor(i: Any, q: Array) -> Array:
            batch: Batch = drawn(jax.random.fold_in(key, i), sides)[0]
            return q - rate * products(sides, x, w, q, batch)[1]

        return rate * terms * jax.lax.fori_loop(0, count, factor, seed)

    return doubled(sides, solve, share)


def fsla(sides: Sides, *, share: float = 0.1) -> Peer:
    """arXiv 2112.04660: one step of each, the direction of x alone by STORM."""

    def step(carry: Any, key: Array, rates: Rates) -> Any:
        x, w, q, (x0, w0, q0, of_x, first) = carry
        batch, unseen = drawn(key, sides)
        slope, by_w, by_x = products(sides, x, w, q, batch)
        (seed, direct), (_, direct0) = seeds(sides, x, w, unseen), seeds(sides, x0, w0, unseen)
        before = direct0 - products(sides, x0, w0, q0, batch)[2]
        of_x = recursive(direct - by_x, before, of_x, jnp.where(first, 1.0, share))
        memory = (x, w, q, of_x, jnp.array(False))
        return (
            x - rates.outer * of_x,
            w - rates.inner * slope,
            q + rates.inner * (seed - by_w),
            memory,
        )

    def start(x: Array, w: Array) -> Any:
        return x, w, 0 * w, (x, w, 0 * w, 0 * x, jnp.array(True))

    return Peer(start, step)


PEERS: dict[str, Callable[[Sides], Peer]] = {
    "SOBA": soba,
    "SABA": saba,
    "stocBiO": stocbio,
    "AmIGO": amigo,
    "F2SA": f2sa,
    "BOME": bome,
    "MRBO": mrbo,
    "SUSTAIN": sustain,
    "FSLA": fsla,
}
