"""Arrays of an ``npz`` file by a schema: type, shape and range are checked before a value is used.

The header of an array is read first. Its type and its shape have to be what the schema says, and its size
what the archive says, before a byte of it is unpacked; then its values have to lie in their range. Nothing
is ever unpickled.
"""

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from rfho.files.packed import Unpacked, Zipped, zipped
from rfho.files.refusal import MOST_BYTES, damaged, parsing

Kinds = tuple[type[np.generic], ...]
PLAIN: Kinds = (np.integer, np.floating, np.bool_, np.str_)
"""What an array may hold if nothing else is said: never objects, nor dates, nor records."""

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LONGEST_HEADER = 10_000
_CHARACTERS, _SURROGATES = 0x110000, (0xD800, 0xE000)


class Array(NamedTuple):
    """What an array has to be.

    Attributes:
        name: in the file.
        kinds: NumPy's scalar types, one of which it must have.
        shape: a size or a name for each axis, None for any shape; axes of one name, in any of the
            arrays that are read together, have the same size.
        lowest: of its values.
        below: its values are smaller than this number, or than the size of the axis of this name.
    """

    name: str
    kinds: Kinds = PLAIN
    shape: tuple[int | str, ...] | None = None
    lowest: int | None = None
    below: int | str | None = None


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    length: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_arrays(path: Path, *wanted: str | Array) -> tuple[np.ndarray, ...]:
    """The wanted arrays of an ``npz`` file, in their order; a name alone stands for ``Array(name)``.

    Raises:
        DataFormatError: not an ``npz`` file, damaged, or an array is missing or is not what the schema
            says. Numbers are finite and texts are texts, whatever the schema.
    """
    schema = [Array(each) if isinstance(each, str) else each for each in wanted]
    sizes: dict[str, int] = {}
    with zipped(path) as archive:
        found = [_read(archive, each, sizes) for each in schema]
    for each, array in zip(schema, found, strict=True):
        _check_values(path, each, array, sizes=sizes)
    return tuple(found)


def read_all_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``npz`` file, by name.

    Raises:
        DataFormatError: as `read_arrays`; or they have more than 1 GiB together.
    """
    names = list(read_shapes(path))
    return dict(zip(names, read_arrays(path, *names), strict=True))


def read_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of all arrays of an ``npz`` file, by name; of their numbers none is read.

    Raises:
        DataFormatError: not an ``npz`` file, damaged, or larger than 1 GiB.
    """
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    with zipped(path) as archive:
        if sum(map(archive.size, archive.members)) > MOST_BYTES:
            raise damaged(path, f"unpacks to more than {MOST_BYTES} bytes")
        for member in archive.members:
            name = member.removesuffix(".npy")
            with archive.opened(member) as stream:
                header = _header(path, name, stream)
            shapes[name] = header.shape, str(header.dtype)
    return shapes


def _read(archive: Zipped, wanted: Array, sizes: dict[str, int]) -> np.ndarray:
    path, member = archive.path, f"{wanted.name}.npy"
    if member not in archive.members:
        known = sorted(name.removesuffix(".npy") for name in archive.members)
        raise damaged(path, f"has no array {wanted.name!r}, only {known}")
    with archive.opened(member) as stream:
        header = _header(path, wanted.name, stream)
        _check_type(path, wanted, header.dtype)
        _check_shape(path, wanted, header.shape, sizes=sizes)
        promised = archive.size(member) - header.length
        if header.nbytes != promised:
            raise damaged(
                path,
                f"has {promised} bytes of data for the array {wanted.name!r} of the shape {header.shape} and "
                f"type {header.dtype}, which has {header.nbytes}",
            )
        content = stream.read(promised)
    if len(content) != promised:
        raise damaged(path, f"ends within the array {wanted.name!r}")
    with parsing(path):
        flat = np.frombuffer(content, header.dtype)
        return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _header(path: Path, name: str, stream: Unpacked) -> _Header:
    """What the array says of itself; no more of it is read than a header may be long."""
    start = stream.read(8)
    version = (start[6], start[7]) if start[:6] == npy.MAGIC_PREFIX and len(start) == 8 else (0, 0)
    if version not in _READERS:
        raise damaged(path, f"has an array {name!r} that does not start as npy arrays do")
    width = 2 if version == (1, 0) else 4
    counted = stream.read(width)
    length = int.from_bytes(counted, "little")
    if length > _LONGEST_HEADER:
        raise damaged(path, f"has an array {name!r} with a header of {length} bytes")
    with parsing(path):
        shape, fortran, dtype = _READERS[version](io.BytesIO(counted + stream.read(length)))
    return _Header(tuple(map(int, shape)), fortran, dtype, len(start) + width + length)


def _check_type(path: Path, wanted: Array, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise damaged(
            path, f"has an array {wanted.name!r} of pickled objects, which are never read"
        )
    if dtype.kind == "m" or not any(np.issubdtype(dtype, kind) for kind in wanted.kinds):
        names = " or ".join(kind.__name__.rstrip("_") for kind in wanted.kinds)
        raise damaged(path, f"has an array {wanted.name!r} of type {dtype}, not {names}")


def _check_shape(
    path: Path, wanted: Array, shape: tuple[int, ...], *, sizes: dict[str, int]
) -> None:
    """Compares a shape with the schema, and notes the sizes of axes that are seen for the first time."""
    if wanted.shape is None and min(shape, default=0) >= 0:
        return
    expected = wanted.shape or ()
    named = dict(zip(expected, shape, strict=False))
    known = {axis: size for axis, size in named.items() if isinstance(axis, str)} | sizes
    if shape != tuple(
        known.get(axis, axis) if isinstance(axis, str) else axis for axis in expected
    ):
        where = ", ".join(f"{axis} = {sizes[axis]}" for axis in expected if axis in sizes)
        meant = f"({', '.join(map(str, expected))})" + (f" with {where}" if where else "")
        raise damaged(path, f"has an array {wanted.name!r} of the shape {shape}, not {meant}")
    if min(shape, default=0) < 0:
        raise damaged(path, f"has an array {wanted.name!r} of the shape {shape}")
    sizes.update(known)


def _check_values(path: Path, wanted: Array, array: np.ndarray, *, sizes: dict[str, int]) -> None:
    if array.dtype.kind == "U":
        _check_text(path, wanted.name, array)
    if array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise damaged(path, f"has a value that is neither true nor false in {wanted.name!r}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise damaged(path, f"has a NaN or an infinity in the array {wanted.name!r}")
    below = sizes.get(wanted.below) if isinstance(wanted.below, str) else wanted.below
    too_low = wanted.lowest is not None and np.any(array < wanted.lowest)
    if too_low or (below is not None and np.any(array >= below)):
        least = "" if wanted.lowest is None else f" from {wanted.lowest}"
        most = "" if below is None else f" to less than {below}"
        raise damaged(
            path,
            f"has values from {array.min()} to {array.max()} in the array {wanted.name!r}, which run"
            f"{least}{most}",
        )


def _check_text(path: Path, name: str, array: np.ndarray) -> None:
    """Every character is one: NumPy stores any number of 32 bits."""
    points = np.frombuffer(array.astype(array.dtype.newbyteorder("=")).tobytes(), np.uint32)
    low, high = _SURROGATES
    if np.any((points >= _CHARACTERS) | ((points >= low) & (points < high))):
        raise damaged(path, f"has a character that does not exist in the array {name!r}")
