"""Files that survive: whole or not there at all, whenever the process or the machine stops.

A file is written beside its place, brought to the disk, and renamed into its place; then the folder is
brought to the disk too. A reader sees what was there before or what is there now, and never a part of it.
Where that fails (a full disk, a limit, a broken one) nothing is left behind, and the error says which file.
"""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from rfho.errors import WriteError

PARTIAL = ".partial"
"""The end of the name of a file that is being written; it begins with a dot."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_END = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)


def write_file(path: Path, *parts: bytes | memoryview) -> None:
    """Makes ``path`` hold the parts one after the other, or leaves it as it is.

    Raises:
        WriteError: it could not be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}{PARTIAL}")
    try:
        with naming(path):
            _write_new(partial, parts)
            os.replace(partial, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def overwrite(path: Path, content: bytes) -> None:
    """Writes over what a file holds, in its place and in the room that it has; the rest becomes spaces.

    For where `write_file` cannot be had: it takes nothing that a full disk or a quota could refuse. A block
    of 4096 bytes is written as a whole as long as the machine runs.

    Raises:
        WriteError: there is no such file, it has less room, or it cannot be written to.
    """
    with naming(path):
        file = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            room = os.fstat(file).st_size
            if len(content) > room:
                raise OSError(errno.ENOSPC, f"it has {room} bytes of room for {len(content)}")
            os.pwrite(file, content.ljust(room), 0)
            os.fsync(file)
        finally:
            os.close(file)


def append_line(path: Path, line: str) -> None:
    """Appends one line to a file, whole or not at all as far as this process is concerned.

    A line that was left without its end, as a killed process may leave one, is removed first. It is in the
    hands of the system when this returns, and on the disk after `sync_file`.

    Raises:
        WriteError: it could not be written.
    """
    with naming(path):
        file = os.open(path, _END, 0o666)
        try:
            whole = _end_of_last_line(file)
            try:
                _write_all(file, f"{line}\n".encode())
            except BaseException:
                os.ftruncate(file, whole)
                raise
        finally:
            os.close(file)


def make_folder(path: Path) -> None:
    """Makes a folder with those above it, if it is not there.

    Raises:
        WriteError: it could not be made.
    """
    with naming(path):
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Brings the content of a file to the disk, if there is such a file.

    Raises:
        WriteError: the disk did not take it.
    """
    with naming(path), suppress(FileNotFoundError):
        _sync(path)


def sync_folder(path: Path) -> None:
    """Brings the names in a folder to the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(path)


def remove_partial(folder: Path) -> None:
    """Removes what writers that were killed have left in a folder; only its owner may do that."""
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Around what writes a file: an `OSError` names it.

    Raises:
        WriteError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}): what was there before is still there; "
            "free space, or choose another folder",
        ) from error


def _write_new(path: Path, parts: tuple[bytes | memoryview, ...]) -> None:
    file = os.open(path, _NEW, 0o666)
    try:
        for part in parts:
            _write_all(file, part)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, content: bytes | memoryview) -> None:
    left = memoryview(content).cast("B")
    while left:
        left = left[os.write(file, left) :]


def _end_of_last_line(file: int) -> int:
    """The size of a file without the line that has no end, which is cut off."""
    size = os.fstat(file).st_size
    whole = size
    while whole and os.pread(file, 1, whole - 1) != b"\n":
        block = os.pread(file, min(whole, 4096), max(0, whole - 4096))
        whole = max(0, whole - 4096) + block.rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(file, whole)
    return whole


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
