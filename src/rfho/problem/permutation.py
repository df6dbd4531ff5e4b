"""The permutation of an epoch, computed index by index.

A Feistel network keyed by (key, epoch) permutes 0..2^b - 1, and cycle-walking restricts it to 0..n - 1
(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int


@functools.partial(jax.jit, static_argnames="count")
def permuted(places: Int[Array, "*shape"], count: int, key: Array) -> Int[Array, "*shape"]:
    """The images of ``places`` under the permutation of 0..count-1 that ``key`` names."""
    bits = max(2, (count - 1).bit_length())
    # The smaller the domain, the more rounds until all permutations are about equally likely.
    keys = jax.random.bits(key, (max(6, 48 // bits),), jnp.uint32)

    def walk(at: tuple[Array, Array]) -> tuple[Array, Array]:
        x, outside = at
        x = jnp.where(outside, _feistel(x, keys, low=bits // 2, high=bits - bits // 2), x)
        return x, x >= count

    everywhere = jnp.ones(places.shape, bool)
    image, _ = jax.lax.while_loop(
        lambda at: jnp.any(at[1]), walk, (places.astype(jnp.uint32), everywhere)
    )
    return image.astype(places.dtype)


def _feistel(x: Array, keys: Array, *, low: int, high: int) -> Array:
    # An unbalanced network: the halves (high, low bits) change places in every round.
    for key in keys:
        left, right = x >> low, x & ((1 << low) - 1)
        left = left ^ (_mix(right ^ key) >> (32 - high))
        x = (right << high) | left
        low, high = high, low
    return x


def _mix(x: Array) -> Array:
    # The finaliser of MurmurHash3.
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
