"""An array outside of JAX: what it is, and the shards of it that this process holds.

A sharded array is never put together: each device's shard is copied by itself, a shard that several devices
hold once, and what lies on the devices of other processes not at all. So a state that is laid out over
many devices needs no device that could hold it whole, and each process keeps its own part. An array comes
back with the dtype, the sharding and the kind of memory that it had.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Sharding

from rfho._programs.avals import in_space
from rfho._programs.tracing import is_traced
from rfho.typing import PyTree

Place = tuple[tuple[int, int], ...]
"""Start and stop along every axis."""


class ArraySpec(NamedTuple):
    """What an array is beside its numbers.

    Attributes:
        shape: of the whole array; of its data, where it is an array of random keys.
        dtype: likewise.
        sharding: where its shards lie, and in which kind of memory.
        committed: whether it was put there, rather than made where arrays are made by default.
        impl: the kind of its random keys; None where it holds numbers.
    """

    shape: tuple[int, ...]
    dtype: Any
    sharding: Sharding
    committed: bool
    impl: Any

    def places(self) -> list[Place]:
        """Where in the array the shards of this process belong, each once."""
        indices = self.sharding.addressable_devices_indices_map(self.shape).values()
        return list(dict.fromkeys(_place(index, self.shape) for index in indices))

    def empty(self) -> list[np.ndarray]:
        """Room on the host for the shards of this process."""
        shapes = [[stop - start for start, stop in place] for place in self.places()]
        return [np.empty(shape, self.dtype) for shape in shapes]


def is_spread(tree: PyTree) -> bool:
    """Whether an array of ``tree`` lies on more than one device."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array)]
    return any(not is_traced(leaf) and len(leaf.sharding.device_set) > 1 for leaf in arrays)


def is_shared(leaf: Any) -> bool:
    """Whether ``leaf`` is an array that lies on devices of other processes too."""
    return isinstance(leaf, Array) and not is_traced(leaf) and not leaf.is_fully_addressable


def is_partly_here(leaf: Any) -> bool:
    """Whether ``leaf`` is an array of which no process sees more than a part."""
    return is_shared(leaf) and not leaf.is_fully_replicated


def to_host(tree: PyTree) -> PyTree:
    """``tree`` with arrays in the memory of the host.

    As NumPy arrays; what spans several processes, so that none of them sees it whole, stays one array over
    their devices.
    """
    return jax.tree.map(lambda leaf: _to_host(leaf) if isinstance(leaf, Array) else leaf, tree)


def _to_host(array: Array) -> Any:
    if not is_partly_here(array):
        got = jax.device_get(array)
        # A view of the array on the device would keep that: 2 kB for a scalar.
        return got.copy() if isinstance(got, np.ndarray) else got
    return jax.device_put(array, array.sharding.with_memory_kind("pinned_host"))


def on_device(tree: PyTree) -> PyTree:
    """``tree`` with what `to_host` left over several processes back in the memory of their devices."""
    device = jax.memory.Space.Device
    return jax.tree.map(
        lambda leaf: in_space(leaf, device) if isinstance(leaf, Array) else leaf, tree
    )


def spec_of(array: Array) -> ArraySpec:
    """What ``array`` is."""
    return _spec_and_data(array)[0]


def to_shards(array: Array) -> tuple[ArraySpec, list[Array]]:
    """What ``array`` is, and its shards, which begin their way to the host but are not waited for."""
    spec, array = _spec_and_data(array)
    held = {_place(shard.index, array.shape): shard.data for shard in array.addressable_shards}
    shards = [held[place] for place in spec.places()]
    for shard in shards:
        shard.copy_to_host_async()
    return spec, shards


def _spec_and_data(array: Array) -> tuple[ArraySpec, Array]:
    """What ``array`` is, and the numbers of which it is made."""
    impl = None
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        impl, array = jax.random.key_impl(array), jax.random.key_data(array)
    return ArraySpec(array.shape, array.dtype, array.sharding, array.committed, impl), array


def from_shards(spec: ArraySpec, shards: Sequence[np.ndarray]) -> Array:
    """The array of ``spec`` with these ``shards``."""
    at = dict(zip(spec.places(), shards, strict=True))
    if spec.committed:
        array = jax.make_array_from_callback(
            spec.shape,
            spec.sharding,
            lambda index: at[_place(index, spec.shape)],
            dtype=spec.dtype,
        )
    else:
        # What was put nowhere goes wherever it is used.
        array = jnp.asarray(*shards, dtype=spec.dtype)
    return array if spec.impl is None else jax.random.wrap_key_data(array, impl=spec.impl)


def _place(index: Any, shape: tuple[int, ...]) -> Place:
    # Slices have more than one spelling, and no hash before Python 3.12.
    return tuple(axis.indices(size)[:2] for axis, size in zip(index, shape, strict=True))
