"""The leaves of a state outside of JAX, bit by bit: what each is, its bytes, and the way back."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs.trees import path_of
from rfho.files import damaged
from rfho.memory.shards import from_shards, to_shards
from rfho.typing import PyTree

_SAFETENSORS = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


class Leaf(NamedTuple):
    """One leaf of a state.

    Attributes:
        path: as one writes it.
        kind: "array", "key" (its data), "number" (of Python) or "static", which is not kept.
        dtype, shape: of the array; of a number its type.
        impl: the kind of random key.
        value: the number, as text that gives it back exactly.
        start, size: where in the file its bytes are.
        sha256: of these bytes.
        weak: whether JAX takes the array's dtype for less than its own word.
    """

    path: str
    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    impl: str = ""
    value: str = ""
    start: int = 0
    size: int = 0
    sha256: str = ""
    weak: bool = False

    @property
    def form(self) -> tuple[str, str, str, tuple[int, ...], str]:
        """What has to be the same in the state that is read into."""
        return self.path, self.kind, self.dtype, self.shape, self.impl


def described(state: PyTree) -> tuple[list[Leaf], list[np.ndarray]]:
    """All leaves, with places as if the file began with them, and the arrays in their order."""
    leaves: list[Leaf] = []
    contents: list[np.ndarray] = []
    start = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        described = leaf_of(path_of(path, ""), leaf)
        if described.kind in ("array", "key"):
            content = np.asarray(jax.random.key_data(leaf) if described.kind == "key" else leaf)
            digest = _sha256(content)
            described = described._replace(start=start, size=content.nbytes, sha256=digest)
            contents.append(content)
            start += content.nbytes
        leaves.append(described)
    return leaves, contents


def leaf_of(path: str, leaf: Any) -> Leaf:
    """What a leaf is, which may be a `jax.ShapeDtypeStruct`; nothing is copied from the device.

    Raises:
        TypeError: an array of objects.
    """
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
        is_number = type(leaf) in (bool, int, float, complex)
        kind, value = ("number", repr(leaf)) if is_number else ("static", "")
        return Leaf(path, kind, type(leaf).__name__, value=value)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        keys: Any = leaf
        data = jax.random.key_data(keys)
        return Leaf(path, "key", data.dtype.name, data.shape, str(jax.random.key_impl(keys)))
    if leaf.dtype.hasobject:
        raise TypeError(f"the state's leaf {path} holds objects, which only pickle could save")
    weak = isinstance(leaf, jax.Array) and bool(leaf.weak_type)
    return Leaf(path, "array", leaf.dtype.name, leaf.shape, weak=weak)


def safetensors_header(leaves: list[Leaf]) -> bytes:
    """The beginning of a file that the package safetensors reads; kinds that it has not are bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "rfho"}}
    for leaf in leaves:
        if leaf.kind in ("array", "key"):
            known = _SAFETENSORS.get(leaf.dtype)
            entries[leaf.path or "state"] = {
                "dtype": known or "U8",
                "shape": list(leaf.shape) if known else [leaf.size],
                "data_offsets": [leaf.start, leaf.start + leaf.size],
            }
    text = json.dumps(entries).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text


def read_leaf(path: Path, stream: io.RawIOBase, leaf: Leaf, like: Any) -> Any:
    """One leaf: its bytes are read into the room of an array of the same form, and then believed."""
    if leaf.kind == "static":
        return like
    if leaf.kind == "number":
        return _number(path, leaf)
    form: Any = jax.random.key_data(like) if leaf.kind == "key" else like
    array = np.empty(form.shape, form.dtype)
    if leaf.size != array.nbytes:
        raise damaged(path, f"has {leaf.size} bytes for {leaf.path}, which has {array.nbytes}")
    if not _filled(stream, leaf.start, memory_of(array)) or _sha256(array) != leaf.sha256:
        raise damaged(path, f"does not hold what was written for {leaf.path}")
    return _like(array, like, weak=leaf.weak)


def _filled(stream: io.RawIOBase, start: int, left: memoryview) -> bool:
    """Whether there are as many bytes as there is room for."""
    stream.seek(start)
    while left:
        count = stream.readinto(left)
        if not count:
            return False
        left = left[count:]
    return True


def _like(array: np.ndarray, like: Any, *, weak: bool) -> Any:
    """The array where and how another one is, so that the program that took that one takes this one."""
    if isinstance(like, np.generic):
        return array[()]
    if isinstance(like, jax.ShapeDtypeStruct):
        return jnp.asarray(array)
    if not isinstance(like, jax.Array):
        return array
    if weak and array.ndim == 0 and jnp.asarray(array.item()).dtype == array.dtype:
        return jnp.asarray(array.item())
    spec, _ = to_shards(like)
    places = [(*(slice(*axis) for axis in place), ...) for place in spec.places()]
    return from_shards(spec, [array[place] for place in places])


def _number(path: Path, leaf: Leaf) -> Any:
    kinds: dict[str, Any] = {"bool": {"True": True, "False": False}.__getitem__}
    kinds |= {"int": int, "float": float, "complex": complex}
    try:
        return kinds[leaf.dtype](leaf.value)
    except (KeyError, ValueError) as error:
        raise damaged(path, f"has no number for {leaf.path}") from error


def memory_of(array: np.ndarray) -> memoryview:
    """The bytes of an array in its order; of an array that is not laid out so, those of a copy."""
    return array.reshape(-1).view(np.uint8).data


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(memory_of(array)).hexdigest()
