"""Where long runs keep their states: in host memory or on disk, out of the device's way."""

import abc
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rfho.typing import State


class AbstractShelf(eqx.Module):
    """A place for states by number."""

    @abc.abstractmethod
    def open(self, like: State) -> Any:
        """An empty shelf for states as ``like``: the handle that the other functions take."""

    @abc.abstractmethod
    def put(self, handle: Any, slot: int, state: State) -> None:
        """Lays ``state`` into ``slot``, in place of what was there."""

    @abc.abstractmethod
    def get(self, handle: Any, slot: int) -> State:
        """The state of ``slot``, on the device."""

    @abc.abstractmethod
    def close(self, handle: Any) -> None:
        """Frees everything."""


class HostShelf(AbstractShelf):
    """States as NumPy arrays in the memory of the host."""

    def open(self, like: State) -> dict[int, State]:
        """A dictionary."""
        return {}

    def put(self, handle: dict[int, State], slot: int, state: State) -> None:
        """Copies to the host."""
        handle[slot] = jax.device_get(state)

    def get(self, handle: dict[int, State], slot: int) -> State:
        """Copies to the device."""
        return jax.tree.map(jnp.asarray, handle[slot])

    def close(self, handle: dict[int, State]) -> None:
        """Forgets them."""
        handle.clear()


class Folder(NamedTuple):
    """The handle of a `DiskShelf`: its folder, and the structure of states."""

    place: tempfile.TemporaryDirectory[str]
    structure: Any

    def file(self, slot: int) -> Path:
        """The file of ``slot``."""
        return Path(self.place.name) / f"{slot}.npz"


class DiskShelf(AbstractShelf):
    """States as files in a folder of their own below ``folder``, which is removed at the end.

    Args:
        folder: an existing folder with room for the states.

    Raises:
        NotADirectoryError: ``folder`` is none.

    Example:
        >>> import rfho, tempfile
        >>> shelf = rfho.DiskShelf(tempfile.gettempdir())
    """

    folder: str = eqx.field(static=True, converter=str)

    def __check_init__(self) -> None:
        if not Path(self.folder).is_dir():
            raise NotADirectoryError(
                f"DiskShelf got folder={self.folder!r}, which is no existing folder: make it first"
            )

    def open(self, like: State) -> Folder:
        """A new folder."""
        place = tempfile.TemporaryDirectory(prefix="rfho-", dir=self.folder)
        return Folder(place, jax.tree.structure(like))

    def put(self, handle: Folder, slot: int, state: State) -> None:
        """Writes one file of arrays.

        Raises:
            OSError: it could not be written, as on a full disk; the message says how much was needed.
        """
        leaves = jax.tree.leaves(jax.device_get(state))
        try:
            np.savez(handle.file(slot), *leaves)
        except OSError as error:
            needed = sum(leaf.nbytes for leaf in leaves) / 1e6
            raise OSError(
                error.errno,
                f"a state of {needed:.1f} MB could not be written to {handle.place.name} "
                f"({error.strerror}): free space there, or use fewer slots",
            ) from error

    def get(self, handle: Folder, slot: int) -> State:
        """Reads one file."""
        with np.load(handle.file(slot), allow_pickle=False) as arrays:
            leaves = [jnp.asarray(arrays[name]) for name in arrays.files]
        return jax.tree.unflatten(handle.structure, leaves)

    def close(self, handle: Folder) -> None:
        """Removes the folder."""
        handle.place.cleanup()
