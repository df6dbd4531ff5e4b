"""States on disk, in a file without a name.

The states of a run are equally large, so that they lie one after the other in one file, as they lie in memory:
numbers of any kind, in no format that could run code when it is read. The file has no name in its
folder, so that the system frees it whatever becomes of the process. What was written is known by its
checksum.
"""

import io
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import numpy as np

from rfho._programs import trees as tree
from rfho.errors import ShelfError
from rfho.memory.shards import ArraySpec
from rfho.memory.shelf import AbstractShelf, Copier, HostCopy
from rfho.typing import State


class DiskSlots(NamedTuple):
    """The handle of a `DiskShelf`.

    Attributes:
        file: where states lie.
        stride: bytes from one to the next.
        copies: by slot, the state without its shards, and their checksum.
        copier: who writes.
    """

    file: io.FileIO
    stride: int
    copies: dict[int, tuple[HostCopy, int]]
    copier: Copier


class DiskShelf(AbstractShelf):
    """States in a file of their own in ``folder``, which has no name there and is gone at the end.

    A state is written while the next segment is computed. Each process writes what its own devices hold;
    processes may share a folder.

    Args:
        folder: an existing folder with room for the states.

    Raises:
        NotADirectoryError: ``folder`` is none.

    Example:
        >>> import rfho, tempfile
        >>> shelf = rfho.DiskShelf(tempfile.gettempdir())
    """

    folder: str = eqx.field(static=True, converter=str)

    @property
    def takes_host_memory(self) -> bool:
        """They lie in a file."""
        return False

    def __check_init__(self) -> None:
        if not Path(self.folder).is_dir():
            raise NotADirectoryError(
                f"DiskShelf got folder={self.folder!r}, which is no existing folder: make it first"
            )

    def open(self, like: State) -> DiskSlots:
        """A new file.

        Raises:
            ShelfError: the folder takes none.
        """
        try:
            # Unbuffered: the system says at once that there is no room, and nothing is left to write later.
            file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 (see `close`)
        except OSError as error:
            raise ShelfError(
                error.errno,
                f"DiskShelf could not make a file in {self.folder} ({error.strerror}): give it a folder that "
                "exists and may be written to",
            ) from error
        return DiskSlots(file, tree.nbytes(like), {}, Copier.start())

    def put(self, handle: DiskSlots, slot: int, state: State) -> None:
        """Writes what this process holds of ``state``, while the caller goes on.

        Raises:
            ShelfError: the state before this one could not be written, as on a full disk; the message says
                how much was needed.
        """
        copy = HostCopy.begun(state)
        handle.copier.begin(lambda: self._write(handle, slot, copy.arrived()))

    def get(self, handle: DiskSlots, slot: int) -> State:
        """Reads it back.

        Raises:
            ShelfError: it is not what was written, or the last state could not be written.
        """
        handle.copier.wait()
        copy, checksum = handle.copies[slot]
        specs = [spec for spec in copy.leaves if isinstance(spec, ArraySpec)]
        shards = [shard for spec in specs for shard in spec.empty()]
        handle.file.seek(slot * handle.stride)
        if not _read(handle.file, shards) or _checksum(shards) != checksum:
            raise ShelfError(
                f"slot {slot} of a DiskShelf in {self.folder} does not hold what was written there: the disk "
                "is damaged, or something else has written to the file; use another folder"
            )
        return copy._replace(shards=shards).state()

    def close(self, handle: DiskSlots) -> None:
        """Removes the file."""
        handle.copier.stop()
        handle.file.close()

    def _write(self, handle: DiskSlots, slot: int, copy: HostCopy) -> None:
        handle.file.seek(slot * handle.stride)
        try:
            for left in _bytes(copy.shards):
                while left:
                    left = left[handle.file.write(left) :]
        except OSError as error:
            needed = sum(shard.nbytes for shard in copy.shards) / 1e6
            raise ShelfError(
                error.errno,
                f"a state of {needed:.1f} MB could not be written to {self.folder} "
                f"({error.strerror}): free space there, or use fewer slots",
            ) from error
        handle.copies[slot] = copy._replace(shards=[]), _checksum(copy.shards)


def _read(file: io.FileIO, shards: list[np.ndarray]) -> bool:
    """Fills ``shards``; False where the file ends too early."""
    for left in _bytes(shards):
        while left:
            count = file.readinto(left)
            if not count:
                return False
            left = left[count:]
    return True


def _checksum(shards: list[np.ndarray]) -> int:
    checksum = 0
    for part in _bytes(shards):
        checksum = zlib.crc32(part, checksum)
    return checksum


def _bytes(shards: list[np.ndarray]) -> Iterator[memoryview]:
    return (np.ravel(shard).view(np.uint8).data for shard in shards)
