"""Minibatches without replacement as a pure function of the step.

A stream must give the same batch on the way back as on the way forward, from any step, without
storing an index sequence. So the permutation of an epoch is not drawn but *computed*, index by
index (see `rfho.problem.permutation`). A batch costs O(size) whatever n is.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho._programs.trees import path_of
from rfho.problem.permutation import permuted
from rfho.typing import Batch, PyTree, Step


class Stream(eqx.Module):
    """Seeded minibatches of ``data``: each epoch visits every example at most once, in a new order.

    Where ``size`` does not divide the number of examples n, the last n mod size examples *of that
    epoch's order* are left out, as every epoch has n // size batches.

    Args:
        data: a pytree of arrays with a common leading axis of n examples.
        size: examples per batch, 1 <= size <= n.
        key: a JAX random key (or an int as its seed).

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> stream = rfho.Stream(jnp.arange(10), size=5, key=jax.random.key(0))
        >>> sorted(jnp.concatenate([stream(0), stream(1)]).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    data: PyTree
    key: Array
    size: int = eqx.field(static=True)

    def __init__(self, data: PyTree, size: int, key: Array | int) -> None:
        data = tree.as_arrays(data, "data")
        examples = common_length(data, "data")
        if (
            isinstance(size, bool)
            or not isinstance(size, int | np.integer)
            or not 1 <= size <= examples
        ):
            raise ValueError(
                f"Stream got size={size!r}, but a batch must be an int between 1 and the {examples} examples"
            )
        self.data = data
        self.size = int(size)
        self.key = tree.as_key(key, "Stream")

    def __call__(self, t: Step) -> Batch:
        """The batch b_t of step t = 0, 1, …: ``data`` with a leading axis of ``size``."""
        index = self.index(t)
        return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), self.data)

    def index(self, t: Step) -> Int[Array, " size"]:
        """Which examples make the batch of step t."""
        examples = jax.tree.leaves(self.data)[0].shape[0]
        per_epoch = examples // self.size
        t = jnp.asarray(t)
        places = (t % per_epoch) * self.size + jnp.arange(self.size)
        return permuted(places, examples, jax.random.fold_in(self.key, t // per_epoch))


class Indexed(eqx.Module):
    """Minibatches by a fixed sequence of indices: row t of ``index`` is batch t.

    Past the last row the sequence begins again. The batches are the same in every epoch, and each has a
    number, by which a method can remember what it said (`rfho.VarianceReducedHyperGradient`).

    Args:
        data: a pytree of arrays with a common leading axis of n examples.
        index: ints of shape (rows, size), each in 0..n - 1.
        key: a JAX random key (or an int as its seed), with which every epoch has the rows in a new order;
            in their own order if None.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> rfho.Indexed(jnp.arange(10) ** 2, [[1, 2], [3, 4]])(1).tolist()
        [9, 16]
    """

    data: PyTree
    index: Int[Array, "rows size"]
    key: Array | None

    def __init__(self, data: PyTree, index: Any, key: Array | int | None = None) -> None:
        data = tree.as_arrays(data, "data")
        examples = common_length(data, "data")
        index = jnp.asarray(index)
        if index.ndim != 2 or not jnp.issubdtype(index.dtype, jnp.integer) or index.size == 0:
            raise ValueError(
                f"Indexed got index of {index.dtype}{list(index.shape)}, but it must be ints of shape "
                "(rows, size)"
            )
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= examples:
            raise ValueError(
                f"Indexed got indices from {low} to {high}, but there are {examples} examples: 0 to "
                f"{examples - 1}"
            )
        self.data = data
        self.index = index
        self.key = None if key is None else tree.as_key(key, "Indexed")

    def __call__(self, t: Step) -> Batch:
        """The batch b_t of step t: ``data`` with a leading axis of ``size``."""
        return self.batch(self.number(t))

    def number(self, t: Step) -> Int[Array, ""]:
        """Which row of ``index`` is the batch of step t."""
        t, rows = jnp.asarray(t), self.index.shape[0]
        if self.key is None:
            return t % rows
        return permuted(t % rows, rows, jax.random.fold_in(self.key, t // rows))

    def batch(self, number: Step) -> Batch:
        """The batch of one row of ``index``."""
        row = self.index[number]
        return jax.tree.map(lambda leaf: jnp.take(leaf, row, axis=0), self.data)


class HostStream(eqx.Module):
    """Batches that a Python function loads on the host, step by step: data that do not fit the device.

    The function is called again on the way back and must return the same batch for the same step: read
    from a file by index, draw from ``numpy.random.default_rng((seed, t))``.

    Args:
        load: ``t -> batch``, a pytree of NumPy arrays; t is an int.
        example: one such batch, for shapes and dtypes; ``load(0)`` by default.

    Example:
        >>> import numpy as np, rfho
        >>> stream = rfho.HostStream(lambda t: np.full(2, t, np.float32))
        >>> stream(3).tolist()
        [3.0, 3.0]
    """

    load: Callable[[int], Batch] = eqx.field(static=True)
    like: PyTree = eqx.field(static=True)

    def __init__(self, load: Callable[[int], Batch], example: Batch = None) -> None:
        if not callable(load):
            raise TypeError(f"HostStream got load={load!r}, but it must be a function of the step")
        example = load(0) if example is None else example
        leaves, structure = jax.tree.flatten(example)
        dtypes = [jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype) for leaf in leaves]
        shapes = [np.shape(leaf) for leaf in leaves]
        self.load = load
        self.like = structure, tuple(zip(shapes, dtypes, strict=True))

    def __call__(self, t: Step) -> Batch:
        """The batch b_t of step t."""
        structure, leaves = self.like
        like = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])

        def loaded(t: Any) -> Batch:
            cast = lambda leaf, like: np.asarray(leaf, like.dtype)  # noqa: E731
            return jax.tree.map(cast, self.load(int(t)), like)

        return jax.pure_callback(loaded, like, jnp.asarray(t), vmap_method="sequential")


def common_length(data: PyTree, name: str) -> int:
    """The length of the leading axis that all leaves share.

    Raises:
        ValueError: there is no leaf, a leaf is a scalar or empty, or two lengths differ.
    """
    lengths = {
        path_of(path, name): (jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0)
        for path, leaf in jax.tree_util.tree_leaves_with_path(data)
    }
    if not lengths:
        raise ValueError(f"{name} has no arrays, but a stream needs at least one")
    (first, length), *others = lengths.items()
    if length == 0:
        raise ValueError(
            f"{first} has no examples, but every array needs a leading axis of one or more"
        )
    for path, other in others:
        if other != length:
            raise ValueError(
                f"{path} has {other} examples and {first} has {length}, but they must agree"
            )
    return length
