"""The outer state on disk: arrays in a format without code, a head that says what they are, a commit.

    00000007/arrays.safetensors    the bytes of all arrays, one after the other
    00000007/head.json             their paths, kinds, shapes and SHA-256; what the caller says of the run
    00000007/commit.json           the SHA-256 of the head

Each file is written whole (see `rfho.files`), the commit last: a snapshot without it does not exist. The
commit vouches for the head and the head for every byte of the arrays, so that one that is damaged is known
as such when it is read, and the one before it is taken. Any dtype that JAX has is kept bit by bit, and typed
keys; nothing is ever unpickled.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rfho._programs.trees import path_of
from rfho.errors import DataFormatError, SnapshotError, positive_int
from rfho.files import damaged, inside, make_folder, read_json, sync_folder, write_file
from rfho.outer.leaves import Leaf, described, leaf_of, memory_of, read_leaf, safetensors_header
from rfho.typing import PyTree

FORMAT = 1
"""Which kind of head this module writes."""

Plain = str | int | float | bool | None
Sections = dict[str, dict[str, Plain]]
"""What a caller says of a run: texts and numbers by name, in sections."""

_ARRAYS, _HEAD, _COMMIT = "arrays.safetensors", "head.json", "commit.json"
_NUMBERED = re.compile(r"[0-9]{8}")
_MOST_IN_A_HEAD = 2**28


class Head(NamedTuple):
    """What stands in ``head.json``.

    Attributes:
        format: `FORMAT` of the version that wrote it.
        byteorder: of the machine.
        header: the SHA-256 of what the file of arrays begins with.
        bytes: the size of that file.
        leaves: of the state.
        sections: what the caller says of the run.
    """

    format: int
    byteorder: str
    header: str
    bytes: int
    leaves: tuple[Leaf, ...]
    sections: Sections


class Commit(NamedTuple):
    """What stands in ``commit.json``."""

    sha256: str


class Snapshot(NamedTuple):
    """A snapshot that was read.

    Attributes:
        number: which one.
        state: the state.
        sections: what was said of the run when it was saved.
        remarks: why later ones were not taken.
    """

    number: int
    state: PyTree
    sections: Sections
    remarks: tuple[str, ...]


def save_snapshot(
    folder: Path,
    state: PyTree,
    sections: Mapping[str, Mapping[str, Plain]],
    *,
    keep: int = 3,
    commit: bool = True,
) -> int:
    """Saves a state as the next snapshot of a folder, and returns its number.

    Args:
        folder: of the snapshots, and of nothing else; made if it is not there.
        state: arrays, typed keys and numbers are kept, other leaves only named.
        sections: what is to be known of the run.
        keep: how many snapshots stay; older ones are removed once this one is safe.
        commit: whether it is one now; otherwise it is none before `commit_snapshot`.

    Raises:
        WriteError: it could not be saved; the others are as they were, and nothing of it is left.
    """
    positive_int(keep, "keep", "save_snapshot")
    make_folder(folder)
    number = 1 + max(_numbers(folder), default=0)
    place = folder / f"{number:08d}"
    leaves, contents = described(state)
    header = safetensors_header(leaves)
    leaves = [leaf._replace(start=leaf.start + len(header)) for leaf in leaves]
    total = len(header) + sum(leaf.size for leaf in leaves)
    digest = hashlib.sha256(header).hexdigest()
    head = Head(
        FORMAT,
        sys.byteorder,
        digest,
        total,
        tuple(leaves),
        {k: dict(v) for k, v in sections.items()},
    )
    try:
        make_folder(place)
        write_file(place / _ARRAYS, header, *(memory_of(content) for content in contents))
        stored = _json(head)
        write_file(place / _HEAD, stored)
        if commit:
            _commit(place, hashlib.sha256(stored).hexdigest())
    except BaseException:
        _remove(place)
        raise
    if commit:
        _tidy(folder, keep)
    return number


def commit_snapshot(folder: Path, number: int, *, keep: int) -> None:
    """Makes a snapshot of what `save_snapshot` has written, once all else that belongs to it is safe.

    Args:
        folder: of the snapshots.
        number: which one.
        keep: how many snapshots stay.

    Raises:
        WriteError: it could not be written.
    """
    place = folder / f"{number:08d}"
    _commit(place, _digest(inside(place, _HEAD)))
    _tidy(folder, keep)


def drop_snapshots(folder: Path, after: int) -> None:
    """Removes all snapshots later than the number ``after``, finished or not."""
    for number in _numbers(folder):
        if number > after:
            _remove(folder / f"{number:08d}")


def load_snapshot(
    folder: Path, like: Callable[[Sections], PyTree], *, below: int | None = None
) -> Snapshot | None:
    """The latest good snapshot of a folder, in the form of a state; None if there is none.

    Args:
        folder: of the snapshots.
        like: gives, for what was said of the run, a state of the same structure, kinds and shapes; arrays come
            back in its sharding. What it raises about a damaged file counts against the snapshot.
        below: only earlier ones than that of this number.

    Raises:
        SnapshotError: all snapshots are damaged, or the latest good one is of another structure.
    """
    remarks: list[str] = []
    for number in sorted(_committed(folder), reverse=True):
        if below is not None and number >= below:
            continue
        try:
            head = _read_head(inside(folder, f"{number:08d}"))
            form = like(head.sections)
            state = _read_state(inside(folder, f"{number:08d}"), head, form)
        except DataFormatError as error:
            remarks.append(f"snapshot {number} is not taken: {error}")
            continue
        return Snapshot(number, state, head.sections, tuple(remarks))
    if remarks:
        raise SnapshotError(f"no snapshot in {folder} can be used: {'; '.join(remarks)}")
    return None


def _read_head(place: Path) -> Head:
    path = inside(place, _HEAD)
    commit: Commit = read_json(inside(place, _COMMIT), Commit)
    if _digest(path) != commit.sha256:
        raise damaged(path, "is not the one that was committed")
    head: Head = read_json(path, Head, _MOST_IN_A_HEAD)
    if head.format != FORMAT or head.byteorder != sys.byteorder:
        raise SnapshotError(
            f"{path} has the format {head.format} ({head.byteorder} endian), but this version of rfho reads "
            f"{FORMAT} on a machine that is {sys.byteorder} endian: go on with the version that wrote it"
        )
    return head


def _commit(place: Path, digest: str) -> None:
    write_file(place / _COMMIT, _json(Commit(digest)))


def _digest(path: Path) -> str:
    with _opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_state(place: Path, head: Head, like: PyTree) -> PyTree:
    """The state, each array compared with its checksum."""
    flat, structure = jax.tree_util.tree_flatten_with_path(like)
    expected = [leaf_of(path_of(path, ""), leaf) for path, leaf in flat]
    _check_structure(place, head.leaves, expected)
    path = inside(place, _ARRAYS)
    with _opened(path) as stream:
        if os.fstat(stream.fileno()).st_size != head.bytes:
            raise damaged(path, f"has not the {head.bytes} bytes that were written")
        header = stream.read(max(0, head.bytes - sum(leaf.size for leaf in head.leaves)))
        if hashlib.sha256(header).hexdigest() != head.header:
            raise damaged(path, "does not begin as it was written")
        read = [
            read_leaf(path, stream, leaf, old)
            for leaf, (_, old) in zip(head.leaves, flat, strict=True)
        ]
    return jax.tree.unflatten(structure, read)


def _check_structure(place: Path, found: Sequence[Leaf], expected: Sequence[Leaf]) -> None:
    forms = itertools.zip_longest(*([leaf.form for leaf in leaves] for leaves in (found, expected)))
    differing = next(((ours, theirs) for ours, theirs in forms if ours != theirs), None)
    if differing is not None:
        ours, theirs = map(_words, differing)
        raise SnapshotError(
            f"the snapshot {place} is of a state of another structure, as it has {ours} where this run has "
            f"{theirs}: go on with the problem, the method and the optimiser that wrote it"
        )


def _words(form: tuple[Any, ...] | None) -> str:
    return (
        "nothing" if form is None else " ".join(str(part) for part in form if part not in ("", ()))
    )


def _numbers(folder: Path) -> list[int]:
    """Those of all snapshots, also of such that were never finished."""
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if _NUMBERED.fullmatch(path.name)]


def _committed(folder: Path) -> list[int]:
    return [number for number in _numbers(folder) if (folder / f"{number:08d}" / _COMMIT).is_file()]


def _tidy(folder: Path, keep: int) -> None:
    """Removes what is older than the last ``keep``, and what was never finished."""
    kept = sorted(_committed(folder))[-keep:]
    for number in _numbers(folder):
        if number not in kept:
            _remove(folder / f"{number:08d}")


def _remove(place: Path) -> None:
    """Removes a snapshot, its commit first; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        (place / _COMMIT).unlink(missing_ok=True)
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        sync_folder(place.parent)


@contextlib.contextmanager
def _opened(path: Path) -> Generator[Any]:
    try:
        stream = path.open("rb", buffering=0)
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from error
    with stream:
        yield stream


def _json(record: Any) -> bytes:
    return json.dumps(_plain(record), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
