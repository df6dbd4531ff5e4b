"""The tape that policies share: rows, in the form and the place that an encoding gives them.

Rows have the sharding of what is written into them, so that each device has its own part of the tape, and
lie in the same memory space.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from rfho._programs import trees as tree
from rfho._programs.avals import Leaf, abstract, aval_of, explicit_sharding, in_space
from rfho.memory.checkpoint import Chain
from rfho.memory.encoding import AbstractEncoding
from rfho.typing import PyTree, State, Step


class Rows(NamedTuple):
    """How entries of one kind lie in rows.

    Attributes:
        encode: ``entry -> stored``.
        decode: ``(stored, like) -> entry``.
        like: an entry, abstract.
    """

    encode: Callable[[PyTree], PyTree]
    decode: Callable[[PyTree, PyTree], PyTree]
    like: PyTree

    def blank(self, count: int) -> PyTree:
        """Room for ``count`` entries."""
        return blank_rows(abstract(self.encode, self.like), count)

    def put(self, rows: PyTree, entry: PyTree, i: Step) -> PyTree:
        """``rows`` with ``entry`` in row i."""
        return put(rows, self.encode(entry), i)

    def get(self, rows: PyTree, i: Step) -> PyTree:
        """The entry in row i."""
        stored = jax.tree.map(
            lambda row: jax.lax.dynamic_index_in_dim(row, i, 0, keepdims=False), rows
        )
        return self.decode(stored, self.like)


def rows_of_states(encoding: AbstractEncoding, like: State) -> Rows:
    """Rows for states."""
    return Rows(encoding.encode_state, encoding.decode_state, like)


def rows_of_memories(encoding: AbstractEncoding, like: PyTree) -> Rows:
    """Rows for what is kept of steps beside their states."""
    return Rows(encoding.encode, encoding.decode, like)


def blank_rows(like: PyTree, count: int) -> PyTree:
    """Room for ``count`` trees, each laid out as ``like``."""
    return jax.tree.map(lambda leaf: blank_like(leaf, count), like)


def put(rows: PyTree, entry: PyTree, i: Step) -> PyTree:
    """``rows`` with ``entry`` in row i."""
    return jax.tree.map(
        lambda row, leaf: jax.lax.dynamic_update_index_in_dim(row, leaf, i, 0), rows, entry
    )


def blank_like(leaf: Leaf, rows: int) -> Array:
    """``rows`` rows of zeros, each with the sharding and in the memory space of ``leaf``, shape (rows, …).

    ``leaf`` may be abstract. Over automatic axes the compiler lays the rows out as it does what is
    written into them.
    """
    return zeros_of(leaf, rows)


def zeros_of(leaf: Leaf, *before: int) -> Array:
    """Zeros as ``leaf``, behind further axes where their lengths are given."""
    aval = aval_of(leaf)
    zeros = jnp.zeros((*before, *aval.shape), aval.dtype)
    sharding = explicit_sharding(aval)
    if sharding is not None:
        spec = PartitionSpec(*(None for _ in before), *sharding.spec)
        zeros = jax.sharding.reshard(zeros, NamedSharding(sharding.mesh, spec))
    return in_space(zeros, aval.memory_space)


class Record(NamedTuple):
    """What the way back needs of a number of steps, written down: the states around them, and memories.

    Attributes:
        encoding: in which form.
        chain: the steps.
    """

    encoding: AbstractEncoding
    chain: Chain

    @property
    def rows(self) -> tuple[Rows, Rows]:
        """Of states and of memories."""
        state, memory = self.chain.needed()[0]
        return rows_of_states(self.encoding, state), rows_of_memories(self.encoding, memory)

    def blank(self, count: int) -> PyTree:
        """Room for ``count`` steps, and for one state more than these."""
        states, memories = self.rows
        return states.blank(count + 1), memories.blank(count)

    def write(
        self, state: State, record: PyTree, *, start: Step, count: Step
    ) -> tuple[State, PyTree]:
        """The state after ``count`` steps, each of which is written down; without steps nothing is.

        A step writes the state *after* it: it has no use for the one before any more when it writes, so
        that the compiler need not copy that one.
        """
        of_states, of_memories = self.rows
        state_kept, memory_kept = jax.tree.map(
            _is_kept, self.chain.needed()[0], is_leaf=tree.is_none
        )

        def one(i: Array, at: tuple[State, PyTree, PyTree]) -> tuple[State, PyTree, PyTree]:
            state, states, memories = at
            state, memory = self.chain.remember(state, start + i)
            states = of_states.put(states, eqx.filter(state, state_kept), i + 1)
            memories = of_memories.put(memories, eqx.filter(memory, memory_kept), i)
            return state, states, memories

        states, memories = record
        first = eqx.filter(state, state_kept)
        old = of_states.get(states, 0)
        first = jax.tree.map(lambda new, old: jnp.where(count > 0, new, old), first, old)
        states = of_states.put(states, first, 0)
        state, *record = jax.lax.fori_loop(0, count, one, (state, states, memories))
        return state, tuple(record)

    def pull_back(self, cotangents: PyTree, record: PyTree, *, start: Step, count: Step) -> PyTree:
        """``cotangents`` pulled back through the steps that are written down, last first."""
        of_states, of_memories = self.rows
        unused = jax.tree.map(zeros_of, self.chain.needed()[1])

        def one(back: Array, cotangents: PyTree) -> PyTree:
            i = count - 1 - back
            states, memories = record
            entry = of_states.get(states, i), of_memories.get(memories, i)
            state, memory = eqx.combine(entry, unused)
            return self.chain.pull_back(cotangents, state, memory, start + i)

        return jax.lax.fori_loop(0, count, one, cotangents)


def _is_kept(leaf: PyTree) -> bool:
    return leaf is not None
