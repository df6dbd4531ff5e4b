"""Tree algebra, and checks that name the path of the leaf they complain about.

States mix floating-point leaves with integers (step counts) and static values; derivatives exist
for the inexact leaves alone. `split` separates the two, so that no float0 cotangent ever appears.
"""

import dataclasses
import enum
import inspect
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from rfho._programs.avals import in_space
from rfho._programs.tracing import is_traced
from rfho.typing import PyTree, Scalar

_SMALL = 2**16
"""Bytes of what is fetched to look at it."""


def split(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Inexact leaves, and all the rest; `equinox.combine` puts them together again."""
    return eqx.partition(tree, eqx.is_inexact_array)


def inexact(tree: PyTree) -> PyTree:
    """The inexact leaves of ``tree``; None elsewhere."""
    return eqx.filter(tree, eqx.is_inexact_array)


def zeros_like(tree: PyTree) -> PyTree:
    """The zero cotangent of ``tree``: zeros on its inexact leaves, None elsewhere."""
    return jax.tree.map(jnp.zeros_like, inexact(tree))


def add(left: PyTree, right: PyTree) -> PyTree:
    """Leafwise sum."""
    return jax.tree.map(jnp.add, left, right)


def subtract(left: PyTree, right: PyTree) -> PyTree:
    """Leafwise difference."""
    return jax.tree.map(jnp.subtract, left, right)


def scale(factor: Scalar | float, tree: PyTree) -> PyTree:
    """``factor`` times every leaf, in the leaf's own dtype."""
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), tree)


def dot(left: PyTree, right: PyTree) -> Scalar:
    """Re Σ ab over all leaves, by which JAX pairs cotangents and tangents; 0 for a tree without leaves."""
    products = jax.tree.map(lambda a, b: jnp.real(jnp.sum(a * b)), left, right)
    return jax.tree.reduce(jnp.add, products, jnp.zeros(()))


def norm(tree: PyTree) -> Scalar:
    """Euclidean norm over all inexact leaves."""
    return jnp.asarray(optax.tree.norm(inexact(tree)))


def size(tree: PyTree) -> int:
    """Number of scalars in the inexact leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(inexact(tree)))


def nbytes(tree: PyTree) -> int:
    """Bytes of all array leaves, abstract ones included."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def is_none(node: Any) -> bool:
    """Whether a node is None, which stands where a leaf belongs to another tree."""
    return node is None


def is_number(leaf: Any) -> TypeGuard[Any]:
    """Whether a leaf is an array or a number, of JAX, NumPy or Python, traced or not.

    `equinox.is_array_like` fails on arrays that are traced.
    """
    numbers = (bool, int, float, complex, np.generic, np.ndarray)
    return eqx.is_array(leaf) or isinstance(leaf, numbers)


def is_inexact_number(leaf: Any) -> bool:
    """Whether a leaf is an array or a number of floating-point or complex kind."""
    return is_number(leaf) and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def as_arrays(data: PyTree, name: str) -> PyTree:
    """``data`` as JAX arrays.

    Raises:
        TypeError: a leaf is no array and no number.
        ValueError: integers do not fit the width that JAX would give them.
    """
    return jax.tree.map_with_path(lambda path, leaf: _as_array(leaf, path_of(path, name)), data)


def _as_array(leaf: Any, where: str) -> Array:
    if not (is_number(leaf) or hasattr(leaf, "__array__")):
        raise TypeError(
            f"{where} is a {type(leaf).__name__}, but it must be made of arrays: give arrays, a rfho.Stream of "
            "minibatches, a rfho.HostStream that loads batch t on the host, or a pure function of the step t"
        )
    if not isinstance(leaf, Array):
        _check_width(np.asarray(leaf), where)
    return jnp.asarray(leaf)


def _check_width(leaf: np.ndarray, where: str) -> None:
    if not np.issubdtype(leaf.dtype, np.integer) or not leaf.size:
        return
    narrow = jax.dtypes.canonicalize_dtype(leaf.dtype)
    low, high, room = int(leaf.min()), int(leaf.max()), np.iinfo(narrow)
    if low < room.min or high > room.max:
        raise ValueError(
            f"{where} holds integers from {low} to {high}, which do not fit {narrow}: renumber them, or call "
            "jax.config.update('jax_enable_x64', True) first"
        )


def as_key(key: Any, of: str) -> Array:
    """``key`` as a JAX key: one already, or an integer of any kind as its seed.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, Array) and (
        jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        or (key.dtype == jnp.uint32 and key.shape == jax.random.PRNGKey(0).shape)
    ):
        return key
    raise TypeError(f"{of} got key={key!r}, but it must be a JAX key or an integer: write key=0")


def as_code(value: Any) -> str:
    """A module as one writes it, on one line: its class, and the arguments that are not the default."""
    if not isinstance(value, eqx.Module) or not hasattr(type(value), "__init__"):
        return str(value) if isinstance(value, enum.Enum) else repr(value)
    made = {
        field.name: field.default_factory()
        for field in dataclasses.fields(value)
        if field.default_factory is not dataclasses.MISSING
    }
    given: list[str] = []
    for i, (name, parameter) in enumerate(inspect.signature(type(value)).parameters.items()):
        default = made.get(name, parameter.default)
        held = _as_number(getattr(value, name, default))
        if eqx.is_array(held):
            given.append(f"{name}=…")
        elif held is not default and not _equal(held, default):
            first = i == 0 and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            given.append(as_code(held) if first else f"{name}={as_code(held)}")
    return f"{type(value).__name__}({', '.join(given)})"


def _as_number(held: Any) -> Any:
    """An array of one entry as its number: members of a run side by side hold theirs so."""
    if not eqx.is_array(held) or held.ndim or is_traced(held):
        return held
    if jnp.issubdtype(held.dtype, jax.dtypes.prng_key):
        return held
    return float(str(np.asarray(held))) if jnp.issubdtype(held.dtype, jnp.floating) else held.item()


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(eqx.tree_equal(one, other))


def path_of(path: tuple[Any, ...], name: str) -> str:
    """A pytree path as one writes it: ``hyper["lr"]``, ``hyper.layers[0]``."""
    return name + jax.tree_util.keystr(path).replace("'", '"')


def first_non_finite(tree: PyTree, name: str) -> str | None:
    """The path of the first leaf with a NaN or an infinity, or None; leaves that are traced count as finite.

    Large arrays are reduced where they lie, and one bool of each is fetched.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_inexact_number(leaf) and not is_traced(leaf) and not is_finite(leaf):
            return path_of(path, name)
    return None


def is_finite(leaf: Any) -> bool:
    """Whether every entry of a leaf with known values is finite: a large array is reduced where it lies."""
    if is_small(leaf):
        return bool(np.isfinite(np.asarray(leaf)).all())
    # While something else is traced, too: a number that is known is looked at now.
    with jax.ensure_compile_time_eval():
        return bool(_all_finite(leaf))


def is_small(leaf: Any) -> bool:
    """Whether what is known is fetched sooner than a program is compiled that looks at it where it lies."""
    return not isinstance(leaf, Array) or (
        leaf.nbytes <= _SMALL and len(leaf.sharding.device_set) == 1
    )


@jax.jit
def _all_finite(leaf: Array) -> Array:
    return jnp.isfinite(in_space(leaf, jax.memory.Space.Device)).all()


def as_hyper(free: PyTree, name: str = "hyper") -> PyTree:
    """The learned leaves of ``hyper`` as inexact JAX arrays.

    Raises:
        TypeError: a leaf is an integer, a bool, a string or no array at all; the message names its
            path.
        ValueError: there is no leaf, or one holds a NaN or an infinity.
    """
    leaves = jax.tree_util.tree_leaves_with_path(free)
    if not leaves:
        raise ValueError(
            f"{name} has no leaves, but there must be at least one hyperparameter to tune"
        )
    for path, leaf in leaves:
        _check_leaf(leaf, path_of(path, name))
    free = jax.tree.map(strong, free)
    bad = first_non_finite(free, name)
    if bad is not None:
        raise ValueError(f"{bad} is not finite, but hyperparameters must start from finite values")
    return free


def _check_leaf(leaf: Any, where: str) -> None:
    if is_traced(leaf):
        return
    if not is_number(leaf):
        raise TypeError(
            f"{where} has type {type(leaf).__name__}, but hyperparameters must be floating-point arrays: "
            "pass a number or an array, or mark it rfho.Fixed()"
        )
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{where} has dtype {dtype}, but hyperparameters must be floating point: "
            "write 0.1 rather than 1, or mark it rfho.Fixed()"
        )


def strong(leaf: Any) -> Array:
    """``leaf`` as an array of its own dtype: a weak type would change after an update and retrace everything."""
    if isinstance(leaf, Array) and not is_traced(leaf):
        if not leaf.weak_type:
            return leaf
        if len(leaf.sharding.device_set) == 1:
            return jax.device_put(np.array(leaf), leaf.sharding if leaf.committed else None)
    elif is_number(leaf) and not is_traced(leaf):
        return known(leaf, jnp.result_type(leaf))
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def known(value: Any, dtype: Any) -> Array:
    """What the host knows as an array; `jax.numpy.asarray` would compile a program to convert it."""
    return jax.device_put(np.array(value, dtype))
