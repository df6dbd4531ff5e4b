"""In which form a step lies on the tape, and in which memory."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._programs.avals import Leaf, abstract, aval_of, in_space
from rfho.typing import PyTree, State


class AbstractEncoding(eqx.Module):
    """In which form states and a step's memory (gradients, residuals) lie on the tape.

    The other way round must give back what was encoded: states exactly, as steps are run again from them;
    memories perhaps rounded.
    """

    @abc.abstractmethod
    def encode_state(self, state: State) -> PyTree:
        """What is written of a state; of a part of it where the way back needs no more."""

    @abc.abstractmethod
    def decode_state(self, stored: PyTree, like: State) -> State:
        """The state, with the dtypes and in the memory space of ``like``."""

    @abc.abstractmethod
    def encode(self, memory: PyTree) -> PyTree:
        """What is written of a memory."""

    @abc.abstractmethod
    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """What is read of it, with the dtypes and in the memory space of ``like``."""


class Exact(AbstractEncoding):
    """As it is."""

    def encode_state(self, state: State) -> PyTree:
        """Itself."""
        return state

    def decode_state(self, stored: PyTree, like: State) -> State:
        """Itself."""
        return stored

    def encode(self, memory: PyTree) -> PyTree:
        """Itself."""
        return memory

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """Itself."""
        return stored


class HalfPrecision(AbstractEncoding):
    """Memories rounded to bfloat16: half the memory, and a relative error of at most 2⁻⁸ in each stored number.

    The hypergradient's own error is far smaller, as roundings of many steps average out; measure it against
    `Exact` on your problem. The bits are stored as uint16, since bfloat16 arrays are slow in loops on CPU.
    """

    def encode_state(self, state: State) -> PyTree:
        """Itself: steps are run again from it."""
        return state

    def decode_state(self, stored: PyTree, like: State) -> State:
        """Itself."""
        return stored

    def encode(self, memory: PyTree) -> PyTree:
        """Floating-point leaves rounded, the others as they are."""
        return jax.tree.map(_to_half, memory)

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """The rounded numbers in their old dtype."""
        return jax.tree.map(_from_half, stored, like)


class HostMemory(AbstractEncoding):
    """The tape in the memory of the host, in the form of ``encoding``: the device holds a step at a time.

    For horizons whose states fit the host and not the device. A row is moved when it is written and when it
    is read, within the compiled program: the moves take the time that the bus needs for the tape, twice.
    On a CPU, where both memories are one, it saves nothing.

    Args:
        encoding: in which form rows lie there.

    Example:
        >>> import rfho
        >>> policy = rfho.StoreAll(encoding=rfho.memory.HostMemory())
        >>> method = rfho.hyper_gradients.ReverseHyperGradient(checkpoint=policy)
    """

    encoding: AbstractEncoding = eqx.field(default_factory=Exact)

    def encode_state(self, state: State) -> PyTree:
        """On the host."""
        return _on_host(self.encoding.encode_state(state))

    def decode_state(self, stored: PyTree, like: State) -> State:
        """Back where it was."""
        stored = _back(stored, abstract(self.encoding.encode_state, like))
        return self.encoding.decode_state(stored, like)

    def encode(self, memory: PyTree) -> PyTree:
        """On the host."""
        return _on_host(self.encoding.encode(memory))

    def decode(self, stored: PyTree, like: PyTree) -> PyTree:
        """Back where it was."""
        stored = _back(stored, abstract(self.encoding.encode, like))
        return self.encoding.decode(stored, like)


def _on_host(encoded: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: in_space(leaf, jax.memory.Space.Host), encoded)


def _back(stored: PyTree, encoded: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf, like: in_space(leaf, aval_of(like).memory_space), stored, encoded
    )


def _to_half(leaf: Array) -> Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf.astype(jnp.bfloat16), jnp.uint16)


def _from_half(leaf: Array, like: Leaf) -> Array:
    if not jnp.issubdtype(like.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf, jnp.bfloat16).astype(like.dtype)
