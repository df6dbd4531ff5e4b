"""What a function gives for abstract arguments: shapes and dtypes, shardings and memory spaces.

`jax.eval_shape` forgets the memory space before JAX 0.12, and the sharding over automatic axes is the
compiler's to choose, so that only explicit ones are known.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.core import ShapedArray
from jax.sharding import NamedSharding

from rfho.typing import PyTree

Leaf = Array | ShapedArray | jax.ShapeDtypeStruct
"""An array, traced or abstract."""


def abstract(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """The outputs of ``function`` as `jax.core.ShapedArray`, which other abstract evaluations take."""
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return jax.tree.unflatten(jax.tree.structure(shapes), program.out_avals)


def aval_of(leaf: Leaf) -> ShapedArray:
    """An array as JAX types it."""
    return leaf if isinstance(leaf, ShapedArray) else jax.typeof(leaf)


def explicit_sharding(aval: ShapedArray) -> NamedSharding | None:
    """The sharding that an array has by its type: None where the compiler chooses it."""
    sharding = aval.sharding
    explicit = jax.sharding.AxisType.Explicit in sharding.mesh.axis_types
    return sharding if explicit else None


def bytes_on_device(avals: PyTree) -> int:
    """Bytes of the memory of the device that the arrays take: a CPU's is that of the host."""
    one_memory = jax.default_backend() == "cpu"
    here = [
        aval
        for aval in map(aval_of, jax.tree.leaves(avals))
        if one_memory or aval.memory_space == jax.memory.Space.Device
    ]
    return sum(aval.size * aval.dtype.itemsize for aval in here)


def in_space(leaf: Array, space: Any) -> Array:
    """``leaf`` in a memory space: itself where it lies there."""
    return leaf if aval_of(leaf).memory_space == space else jax.device_put(leaf, space)
