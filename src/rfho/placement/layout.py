"""How one array lies over the axes of a mesh: whole on every device, or cut along one of its own axes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfho._programs import trees as tree
from rfho._programs.tracing import is_traced
from rfho.typing import PyTree


class Devices(NamedTuple):
    """The devices along some axes of a mesh.

    Attributes:
        mesh: of which they are.
        axes: their names; an array that is cut is cut over all of them together.
    """

    mesh: Mesh
    axes: tuple[str, ...]

    @property
    def number(self) -> int:
        """How many parts an array is cut into."""
        return int(np.prod([self.mesh.shape[axis] for axis in self.axes]))

    @property
    def explicit(self) -> bool:
        """Whether layouts are part of the types of arrays (`jax.sharding.AxisType.Explicit`)."""
        kinds = dict(zip(self.mesh.axis_names, self.mesh.axis_types, strict=True))
        return AxisType.Explicit in {kinds[axis] for axis in self.axes}

    def share(self, members: int) -> int:
        """How many of so many members a device has.

        Raises:
            ValueError: they do not divide over the devices.
        """
        over = members % self.number
        if over:
            raise ValueError(
                f"got {members} starts for {self.number} devices, but each device takes as many as the others: "
                f"leave {over} out or add {self.number - over}"
            )
        return members // self.number

    def whole(self, leaf: Array) -> NamedSharding:
        """All of ``leaf`` on every device."""
        return NamedSharding(self.mesh, PartitionSpec(*(None for _ in leaf.shape)))

    def cut(self, leaf: Array, axis: int) -> NamedSharding:
        """``leaf`` cut along one of its axes."""
        before = (None for _ in range(axis))
        return NamedSharding(self.mesh, PartitionSpec(*before, self.axes))


def devices_of(mesh: Any, axes: str | tuple[str, ...] | None, of: str) -> Devices:
    """The devices along ``axes`` of ``mesh``, along all of its axes where they are None.

    Raises:
        TypeError: it is no mesh.
        ValueError: it has no such axis.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{of} got mesh={mesh!r}, but it must be a jax.sharding.Mesh: write "
            'jax.make_mesh((len(jax.devices()),), ("examples",), axis_types=(jax.sharding.AxisType.Auto,))'
        )
    names = tuple(mesh.axis_names)
    chosen = names if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
    unknown = [axis for axis in chosen if axis not in names]
    if unknown or not chosen:
        raise ValueError(f"{of} got axes={axes!r}, but the axes of the mesh are {names}")
    return Devices(mesh, chosen)


Layout = Callable[[Array, str], NamedSharding]
"""From an array, traced or not, and its path to where it lies."""


def laid(arrays: PyTree, layout: Layout, name: str, *, keep: bool = True) -> PyTree:
    """``arrays`` as ``layout`` says; what is no array stays as it is.

    Args:
        arrays: any pytree.
        layout: of each array in it.
        name: what messages call it.
        keep: leave alone what is cut over devices by the user's own hand.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        leaf = jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf
        if not eqx.is_array(leaf) or (keep and is_cut(leaf)):
            return leaf
        return placed(leaf, layout(leaf, tree.path_of(path, name)))

    return jax.tree.map_with_path(one, arrays)


def is_cut(leaf: Array) -> bool:
    """Whether no device holds all of ``leaf``, as far as that is known."""
    return not is_traced(leaf) and not leaf.sharding.is_fully_replicated


def placed(leaf: Array, sharding: NamedSharding) -> Array:
    """``leaf`` where ``sharding`` says: moved there now, or inside the program that is traced."""
    if not is_traced(leaf):
        return jax.device_put(leaf, sharding)
    if AxisType.Explicit in sharding.mesh.axis_types:
        return jax.sharding.reshard(leaf, sharding)
    return jax.lax.with_sharding_constraint(leaf, sharding)


def whole_on_each(devices: Devices) -> Layout:
    """All of each array on every device."""
    return lambda leaf, _: devices.whole(leaf)


def examples_over(devices: Devices) -> Layout:
    """Arrays cut along their leading axis, that of examples; scalars on every device.

    Raises, when it is asked:
        ValueError: the examples do not divide over the devices.
    """

    def layout(leaf: Array, path: str) -> NamedSharding:
        if leaf.ndim == 0:
            return devices.whole(leaf)
        over = leaf.shape[0] % devices.number
        if over:
            raise ValueError(
                f"{path} has {leaf.shape[0]} examples, which do not divide over {devices.number} devices: leave "
                f"{over} out or add {devices.number - over}; what has no axis of "
                "examples goes into hyper under rfho.Fixed()"
            )
        return devices.cut(leaf, 0)

    return layout


def parameters_over(devices: Devices) -> Layout:
    """Arrays cut along their longest axis that divides over the devices; those without one on every device."""

    def layout(leaf: Array, _: str) -> NamedSharding:
        axis = longest_that_divides(leaf.shape, devices)
        return devices.whole(leaf) if axis is None else devices.cut(leaf, axis)

    return layout


def longest_that_divides(shape: tuple[int, ...], devices: Devices) -> int | None:
    """The axis along which parameters of a shape are cut; None where no axis divides over the devices."""
    fits = [axis for axis, length in enumerate(shape) if length and length % devices.number == 0]
    return max(fits, key=lambda axis: shape[axis], default=None)
