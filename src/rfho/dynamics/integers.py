"""Real numbers as 64-bit integers, and a multiplication by n/d that forgets nothing.

A product v n/d with n < d has fewer digits than v, so that many v have the same product. What tells
them apart goes into a second integer i, the head of an information buffer, of which only as much is
used as is lost: log₂(d/n) bits (alg. 3 of arXiv 1502.03492). Here the digits are first borrowed
from i, so that the product is right to one unit in the last place whatever d is:

    u = i mod n,  i ← i // n;     v ← (v n + u) // d,  e = (v n + u) mod d;     i ← i d + e

a bijection of pairs (v, i), undone line by line from the end. Words of 32 bits stand for integers
of 64, so that states look the same whether JAX runs with 64-bit types or without.

A number that leaves its range, or meets a NaN, is broken for good, and a NaN as a float.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, UInt16, UInt32

_DIGITS = 31
DENOMINATOR = 1 << _DIGITS
"""d, the denominator of every factor n/d: factors are rounded to multiples of 2^-31."""

LEAST_NUMERATOR = 1 << (_DIGITS - 14)
"""The least n: one spill of 16 bits per product makes room for any product by 2^-14 or more."""

SPILLED = 16
"""Bits that leave the head of the buffer at a time."""

_RANGE = 61  # numbers stay below 2^61, so that a sum of two cannot overflow
_BROKEN = -(1 << 63)


class Words(NamedTuple):
    """64-bit integers as two words each.

    Attributes:
        high: the upper 32 bits.
        low: the lower 32 bits.
    """

    high: UInt32[Array, "*shape"]
    low: UInt32[Array, "*shape"]


class Product(NamedTuple):
    """A number and the head of the buffer after a multiplication.

    Attributes:
        number: v, signed.
        head: i, unsigned.
    """

    number: Words
    head: Words


def zeros(shape: tuple[int, ...]) -> Words:
    """The number 0 in ``shape``."""
    zero = jnp.zeros(shape, jnp.uint32)
    return Words(zero, zero)


def decoded(number: Words, bits: int, dtype: jnp.dtype) -> Array:
    """The number as a float, v 2^-bits; NaN if it is broken."""
    with jax.enable_x64(True):
        v = _signed(number)
        return jnp.where(v == _BROKEN, jnp.nan, v.astype(dtype) * jnp.asarray(2.0**-bits, dtype))


def add(number: Words, real: Float[Array, "*shape"], bits: int) -> Words:
    """The sum v + ``real``, which is rounded to a multiple of 2^-bits."""
    with jax.enable_x64(True):
        return _split(_sum(_signed(number), real, scale=2.0**bits))


def subtract(number: Words, real: Float[Array, "*shape"], bits: int) -> Words:
    """The difference v - ``real``: undoes `add` exactly."""
    with jax.enable_x64(True):
        return _split(_sum(_signed(number), -real, scale=2.0**bits))


def numerator(factor: Float[Array, ""]) -> UInt32[Array, ""]:
    """n, so that n/d is the multiple of 2^-31 next to ``factor``, between 2^-14 and 1."""
    least = LEAST_NUMERATOR / DENOMINATOR
    return jnp.round(jnp.clip(factor, least, 1.0) * float(DENOMINATOR)).astype(jnp.uint32)


def multiply(number: Words, head: Words, n: UInt32[Array, ""]) -> Product:
    """The product v n/d, with what is lost in the buffer."""
    with jax.enable_x64(True):
        v, i, factor = _signed(number), _unsigned(head), n.astype(jnp.uint64)
        broken = v == _BROKEN
        u, i = i % factor, i // factor
        # v = q d + r, so that v n + u = q n d + (r n + u) and nothing exceeds 64 bits.
        q, r = v >> _DIGITS, (v & (DENOMINATOR - 1)).astype(jnp.uint64)
        x = r * factor + u
        v = jnp.where(broken, _BROKEN, q * n.astype(jnp.int64) + (x >> _DIGITS).astype(jnp.int64))
        i = (i << _DIGITS) | (x & (DENOMINATOR - 1))
        return Product(_split(v), _split(i))


def divide(number: Words, head: Words, n: UInt32[Array, ""]) -> Product:
    """Undoes `multiply` exactly."""
    with jax.enable_x64(True):
        v, i, factor = _signed(number), _unsigned(head), n.astype(jnp.int64)
        broken = v == _BROKEN
        e, i = (i & (DENOMINATOR - 1)).astype(jnp.int64), i >> _DIGITS
        # v = q n + s, so that v d + e = q n d + (s d + e) and nothing exceeds 64 bits.
        q, s = _floor_divided(v, factor)
        x = ((s << _DIGITS) | e).astype(jnp.uint64)
        u, r = x % n.astype(jnp.uint64), x // n.astype(jnp.uint64)
        v = jnp.where(broken, _BROKEN, (q << _DIGITS) + r.astype(jnp.int64))
        return Product(_split(v), _split(i * n.astype(jnp.uint64) + u))


class Room(NamedTuple):
    """How full the head may be after the next product.

    Attributes:
        bound: i < bound.
        spill: whether 16 bits must leave before the product, lest i d exceed 62 bits.
    """

    bound: Words
    spill: Bool[Array, ""]


def room(bound: Words, n: UInt32[Array, ""]) -> Room:
    """The bound after one more product by n/d. It depends on n alone, so all elements spill together."""
    with jax.enable_x64(True):
        before, factor = _unsigned(bound), n.astype(jnp.uint64)
        spill = (before - 1) // factor + 1 > DENOMINATOR
        before = jnp.where(spill, ((before - 1) >> SPILLED) + 1, before)
        after = ((before - 1) // factor + 1) << _DIGITS
        return Room(_split(after), spill)


def bound_of_empty() -> Words:
    """The bound of an empty head: i < 1."""
    return Words(jnp.zeros((), jnp.uint32), jnp.ones((), jnp.uint32))


def bits_below(bound: Words) -> Float[Array, ""]:
    """log₂ of the bound: the information that the head may hold."""
    return jnp.log2(bound.high * 2.0**32 + bound.low)


def lowest(head: Words) -> UInt16[Array, "*shape"]:
    """The 16 bits that leave next."""
    return head.low.astype(jnp.uint16)


def without_lowest(head: Words) -> Words:
    """The head i // 2^16."""
    low = (head.low >> SPILLED) | (head.high << (32 - SPILLED))
    return Words(head.high >> SPILLED, low)


def with_lowest(head: Words, word: UInt16[Array, "*shape"]) -> Words:
    """The head i 2^16 + ``word``: undoes `without_lowest`."""
    high = (head.high << SPILLED) | (head.low >> (32 - SPILLED))
    return Words(high, (head.low << SPILLED) | word.astype(jnp.uint32))


# Integers of 64 bits live only between these, inside `jax.enable_x64`.


def _signed(number: Words) -> Array:
    return (number.high.astype(jnp.int64) << 32) | number.low.astype(jnp.int64)


def _unsigned(number: Words) -> Array:
    return (number.high.astype(jnp.uint64) << 32) | number.low.astype(jnp.uint64)


def _split(integer: Array) -> Words:
    return Words((integer >> 32).astype(jnp.uint32), integer.astype(jnp.uint32))


def _sum(v: Array, real: Array, *, scale: float) -> Array:
    # Rounding is symmetric, so that the negative of ``real`` takes away what ``real`` has added.
    scaled = real * jnp.asarray(scale, real.dtype)
    total = v + jnp.round(scaled).astype(jnp.int64)
    sound = (v != _BROKEN) & (jnp.abs(scaled) < 2.0**_RANGE) & (jnp.abs(total) < 1 << _RANGE)
    return jnp.where(sound, total, _BROKEN)


def _floor_divided(v: Array, n: Array) -> tuple[Array, Array]:
    # Floor division and its remainder in [0, n), for signed v and positive n.
    n = jnp.broadcast_to(n, v.shape)
    q, s = jax.lax.div(v, n), jax.lax.rem(v, n)
    return jnp.where(s < 0, q - 1, q), jnp.where(s < 0, s + n, s)
