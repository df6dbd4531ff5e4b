"""In which form what is kept of a step lies on the tape."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho.typing import PyTree


class AbstractStorage(eqx.Module):
    """In which form a step's memory (gradients, residuals) lies on the tape; states are always exact."""

    @abc.abstractmethod
    def encode(self, memory: PyTree) -> PyTree:
        """What is written."""

    @abc.abstractmethod
    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """What is read, with the dtypes of ``like``."""


class Exact(AbstractStorage):
    """As it is."""

    def encode(self, memory: PyTree) -> PyTree:
        """Itself."""
        return memory

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """Itself."""
        del like
        return stored


class HalfPrecision(AbstractStorage):
    """Rounded to bfloat16: half the memory, and a relative error of at most 2⁻⁸ in each stored number.

    The hypergradient's own error is far smaller, as roundings of many steps average out; measure it against
    `Exact` on your problem. The bits are stored as uint16, since bfloat16 arrays are slow in loops on CPU.
    """

    def encode(self, memory: PyTree) -> PyTree:
        """Floating-point leaves rounded, the others as they are."""
        return jax.tree.map(_to_half, memory)

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """The rounded numbers in their old dtype."""
        return jax.tree.map(_from_half, stored, like)


def _to_half(leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf.astype(jnp.bfloat16), jnp.uint16)


def _from_half(leaf: Array, like: Array) -> Array:
    if not jnp.issubdtype(like.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf, jnp.bfloat16).astype(like.dtype)
