"""The processes over which the arrays of a run lie, and what they agree on.

All of them take the same outer steps, so that what one alone would decide, by its clock, by a signal, by what it
finds on its disk, is asked of all: each says its numbers, each hears those of all, and each draws the same
conclusion. This is a program that sends between the devices, as an outer step is, so all have to come to it in the
same order: it is only used where nothing that happened to one process alone can have led.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rfho.errors import HyperGradientError, Result, SnapshotError
from rfho.memory.shards import is_shared
from rfho.typing import PyTree

_COLLECTIVES = ("Gloo", "NCCL", "MPI", "coordination service")
"""What errors name that come of sending to a process which is gone."""

_LONGEST = 1000
"""Bytes of a complaint that others hear."""


class Peers:
    """This process and the others of a run; without any others everything is agreed on at once.

    Args:
        processes: their numbers in JAX, this one's among them.

    Attributes:
        index: which of them this is; the first one leads.
        count: how many there are.
    """

    def __init__(self, processes: Sequence[int] = ()) -> None:
        self.count = max(1, len(processes))
        self.index = list(processes).index(jax.process_index()) if processes else 0
        devices = [_first_device(process) for process in processes]
        self._mesh = Mesh(np.array(devices, object), ("process",)) if processes else None

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that owns the folder and writes the reports."""
        return self.index == 0

    def gathered(self, *numbers: int) -> np.ndarray:
        """What each of them says, a row of 32-bit ints for each; all have to call it."""
        own = np.array([numbers], np.int32)
        if self._mesh is None:
            return own
        apart, whole = (
            NamedSharding(self._mesh, PartitionSpec(*axes)) for axes in (["process"], [])
        )
        device = self._mesh.devices[self.index]
        with jax.set_mesh(self._mesh):
            rows = jax.make_array_from_single_device_arrays(
                (self.count, len(numbers)), apart, [jax.device_put(own, device)]
            )
            return np.asarray(jax.jit(_same, out_shardings=whole)(rows).addressable_data(0))

    def check(self, error: Exception | None) -> None:
        """Raises the error of this process, or says whose there is; all have to call it.

        Raises:
            SnapshotError: another process has one.
        """
        said = b"" if error is None else f"{type(error).__name__}: {error}".encode()[:_LONGEST]
        sizes = [int(size) for (size,) in self.gathered(len(said))]
        if not any(sizes):
            return
        texts = [] if self.alone else self.gathered(*said.ljust(_LONGEST))
        if error is not None:
            raise error
        first = next(i for i, size in enumerate(sizes) if size)
        text = bytes(texts[first][: sizes[first]].astype(np.uint8)).decode(errors="replace")
        raise SnapshotError(f"process {first} of this run cannot go on, so none does: {text}")

    @contextlib.contextmanager
    def named(self) -> Generator[None]:
        """Around what needs the others: says what it is when one of them is gone.

        Raises:
            HyperGradientError: one of them is.
        """
        try:
            yield
        except Exception as error:
            if self.alone or not any(name in str(error) for name in _COLLECTIVES):
                raise
            first = str(error).partition("\n")[0]
            raise HyperGradientError(
                Result.PROCESS_LOST,
                "another process of this run ended or cannot be reached: start all of them again; with run= they go "
                f"on from what all have saved ({first[:200]})",
            ) from error

    def share(self, signals: list[int]) -> bool:
        """Whether one of several has got a signal; all have got it then. All have to call it."""
        if self.alone:
            return False
        number = int(self.gathered(signals[-1] if signals else 0).max())
        if number and not signals:
            signals.append(number)
        return bool(number)


def peers_of(tree: PyTree) -> Peers:
    """Those over which arrays of ``tree`` lie."""
    arrays: list[Any] = [leaf for leaf in jax.tree.leaves(tree) if is_shared(leaf)]
    devices = set[Any]().union(*(array.sharding.device_set for array in arrays))
    return Peers(sorted({device.process_index for device in devices}))


def attempt(action: Callable[[], Any]) -> Exception | None:
    """What an action raises, for `Peers.check`."""
    try:
        action()
    except Exception as error:
        return error
    return None


def _same(rows: Any) -> Any:
    return rows


def _first_device(process: int) -> Any:
    return next(device for device in jax.devices() if device.process_index == process)
