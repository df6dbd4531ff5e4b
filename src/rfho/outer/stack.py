"""Trees of one structure as one tree with a leading axis of members, and back."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rfho._programs.avals import aval_of, explicit_sharding
from rfho.typing import PyTree


def stacked(members: Sequence[PyTree], name: str) -> PyTree:
    """Trees of one structure as one, with a leading axis of members on every array and number.

    Raises:
        ValueError: they differ in structure, shape, dtype or in what is static.
    """
    members = [jax.tree.map(_as_array, one) for one in members]
    layouts = [_layout(one) for one in members]
    for i, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise ValueError(
                f"{name}[{i}] differs from {name}[0] in structure, shape, dtype or static entries, but members "
                "run side by side: give all of them one structure, or tune them one after another"
            )
    arrays = [eqx.filter(one, eqx.is_array) for one in members]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
    return eqx.combine(together, eqx.filter(members[0], eqx.is_array, inverse=True))


def member(together: PyTree, i: int) -> PyTree:
    """Member i of what is stacked."""
    return jax.tree.map(lambda leaf: _row(leaf, i) if hasattr(leaf, "shape") else leaf, together)


def with_member(together: PyTree, i: int, one: PyTree) -> PyTree:
    """What is stacked, with ``one`` as member i."""
    put = lambda leaf, new: _whole(leaf).at[i].set(new) if hasattr(leaf, "shape") else leaf  # noqa: E731
    return jax.tree.map(put, together, one)


def _row(leaf: Any, i: int) -> Any:
    sharding = _explicit(leaf)
    if sharding is None:
        return leaf[i]
    # Over explicit axes the layout of a row of what is cut along its rows is not left to the compiler.
    return leaf.at[i].get(out_sharding=NamedSharding(sharding.mesh, P(*sharding.spec[1:])))


def _whole(leaf: Array) -> Array:
    sharding = _explicit(leaf)
    if sharding is None:
        return leaf
    return jax.device_put(leaf, NamedSharding(sharding.mesh, P(None, *sharding.spec[1:])))


def _explicit(leaf: Any) -> NamedSharding | None:
    return explicit_sharding(aval_of(leaf)) if isinstance(leaf, Array) else None


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, float) else leaf


def _layout(one: PyTree) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(one)
    described = [(leaf.shape, str(leaf.dtype)) if eqx.is_array(leaf) else leaf for leaf in leaves]
    return structure, described
