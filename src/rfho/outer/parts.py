"""Arrays that lie over several processes, as the parts of them that this one holds.

Each process keeps its own parts, named by where in the array they belong; how the arrays lay is kept as words, so
that they come back as they lay, whatever program is compiled for them.
"""

import json
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rfho.memory.shards import ArraySpec, from_shards, is_shared, to_shards
from rfho.outer.snapshot import Plain
from rfho.typing import PyTree


def mesh_of(tree: PyTree) -> Mesh | None:
    """The mesh over whose processes arrays of ``tree`` lie; None if they lie within this one.

    Raises:
        ValueError: they lie over several meshes, or over none.
    """
    arrays: list[Any] = [leaf for leaf in jax.tree.leaves(tree) if is_shared(leaf)]
    meshes = {getattr(array.sharding, "mesh", None) for array in arrays}
    if not meshes:
        return None
    mesh = meshes.pop()
    if meshes or not isinstance(mesh, Mesh):
        raise ValueError(
            "run= keeps arrays that lie over several processes by the axes of one mesh, but those of this run lie "
            "over several meshes or none: lay all of them out by jax.sharding.NamedSharding over the same one"
        )
    return mesh


def layouts_of(state: PyTree) -> str:
    """How the arrays of ``state`` lie that this process shares with others, as words.

    Raises:
        ValueError: one lies by no axes of a mesh.
    """
    return json.dumps([_layout(leaf) for leaf in jax.tree.leaves(state)])


def parts_of(state: PyTree) -> PyTree:
    """``state`` with the parts of this process in the place of arrays that it shares with others."""
    return jax.tree.map(lambda leaf: _parts(leaf) if is_shared(leaf) else leaf, state)


class Lying(NamedTuple):
    """A state whose shared arrays lie as they lay.

    Attributes:
        like: the form of `parts_of` it.
        structure: of the state.
        specs: of each leaf that is shared; None for the others.
    """

    like: PyTree
    structure: Any
    specs: list[ArraySpec | None]

    @staticmethod
    def of(like: PyTree, layouts: Plain, mesh: Mesh | None) -> "Lying":
        """Of a state of the form ``like`` that lay over ``mesh`` as ``layouts`` say."""
        leaves, structure = jax.tree.flatten(like)
        said = json.loads(str(layouts)) if layouts else []
        # Of a state of another structure the reader of the snapshot will say so.
        said = said if len(said) == len(leaves) else [None] * len(leaves)
        specs = [
            None if layout is None or mesh is None else _spec(leaf, layout, mesh)
            for leaf, layout in zip(leaves, said, strict=True)
        ]
        forms = [
            leaf if spec is None else dict(zip(_names(spec), spec.empty(), strict=True))
            for leaf, spec in zip(leaves, specs, strict=True)
        ]
        return Lying(jax.tree.unflatten(structure, forms), structure, specs)

    def whole(self, parts: PyTree) -> PyTree:
        """The state of its parts."""
        leaves = [
            leaf if spec is None else from_shards(spec, [leaf[name] for name in _names(spec)])
            for leaf, spec in zip(self.structure.flatten_up_to(parts), self.specs, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)


def _parts(array: jax.Array) -> dict[str, Any]:
    spec, shards = to_shards(array)
    return dict(zip(_names(spec), shards, strict=True))


def _names(spec: ArraySpec) -> list[str]:
    return [
        ", ".join(f"{start}:{stop}" for start, stop in place) or "all" for place in spec.places()
    ]


def _layout(leaf: Any) -> list[Any] | None:
    """The kind of memory, and the axes of the mesh along each axis of the array."""
    if not is_shared(leaf):
        return None
    if not isinstance(leaf.sharding, NamedSharding):
        raise ValueError(
            "run= keeps arrays that lie over several processes by the axes of a mesh, but one of the shape "
            f"{leaf.shape} lies by {leaf.sharding}: lay the arrays of the problem out by jax.sharding.NamedSharding"
        )
    return [leaf.sharding.memory_kind, *leaf.sharding.spec]


def _spec(leaf: Any, layout: list[Any], mesh: Mesh) -> ArraySpec:
    kind, *axes = layout
    spec = PartitionSpec(*(tuple(axis) if isinstance(axis, list) else axis for axis in axes))
    sharding = NamedSharding(mesh, spec, memory_kind=kind)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data: Any = jax.eval_shape(jax.random.key_data, leaf)
        return ArraySpec(data.shape, data.dtype, sharding, True, jax.random.key_impl(leaf))
    return ArraySpec(leaf.shape, np.dtype(leaf.dtype), sharding, True, None)
