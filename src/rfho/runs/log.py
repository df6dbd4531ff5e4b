"""A file that only grows, whose size and checksum at any moment say where to go on from."""

import contextlib
import hashlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from rfho.files import damaged, naming, readable, sync_file

_CHUNK = 2**20


class Place(NamedTuple):
    """How far a log has been written: so many bytes, of this SHA-256."""

    size: int
    sha256: str


class Log:
    """A log, open at its end.

    Args:
        path: of the file; made if it is not there.

    Raises:
        WriteError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with naming(path):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.open(path, flags, 0o666)
        self._size, self._digest = 0, hashlib.sha256()

    def append(self, content: bytes) -> None:
        """Adds something, whole or not at all.

        Raises:
            WriteError: it could not be written.
        """
        left = memoryview(content)
        with naming(self.path):
            try:
                while left:
                    at = self._size + len(content) - len(left)
                    left = left[os.pwrite(self._file, left, at) :]
            except BaseException:
                os.ftruncate(self._file, self._size)
                raise
        self._size += len(content)
        self._digest.update(content)

    @contextlib.contextmanager
    def together(self) -> Generator[None]:
        """What is appended within the block stays only if the block ends well."""
        size, digest = self._size, self._digest.copy()
        try:
            yield
        except BaseException:
            os.ftruncate(self._file, size)
            self._size, self._digest = size, digest
            raise

    @property
    def place(self) -> Place:
        """How far it has been written."""
        return Place(self._size, self._digest.hexdigest())

    def rewind(self, place: Place) -> None:
        """Goes back to an earlier place, and forgets what came after it.

        Raises:
            DataFormatError: what is before it is not what was written.
            WriteError: it cannot be cut off.
        """
        digest = hashlib.sha256()
        with naming(self.path):
            left = place.size
            while left and (part := os.pread(self._file, min(left, _CHUNK), place.size - left)):
                digest.update(part)
                left -= len(part)
        if left or digest.hexdigest() != place.sha256:
            raise damaged(
                self.path, f"does not begin with the {place.size} bytes that were written"
            )
        with naming(self.path):
            os.ftruncate(self._file, place.size)
        self._size, self._digest = place.size, digest

    def read(self, start: int, size: int) -> bytes:
        """A piece of what was written.

        Raises:
            DataFormatError: it is not there.
        """
        content = os.pread(self._file, size, start)
        if len(content) != size:
            raise damaged(self.path, f"ends before the byte {start + size}")
        return content

    def sync(self) -> None:
        """Brings it to the disk.

        Raises:
            WriteError: the disk did not take it.
        """
        sync_file(readable(self.path))

    def close(self) -> None:
        """Frees the file."""
        os.close(self._file)
