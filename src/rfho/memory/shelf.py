"""Where long runs keep their states: in the memory of the host, or on disk, out of the device's way."""

import abc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from rfho.memory.shards import ArraySpec, from_shards, to_shards
from rfho.typing import PyTree, State


class AbstractShelf(eqx.Module):
    """A place for states by number.

    A state comes back as it was laid down: every dtype that JAX has, random keys, leaves that are no arrays,
    each array in its sharding and kind of memory. `put` need not wait: what goes wrong with a copy may
    be raised by whatever is called next. A shelf of your own defines these four functions; `HostCopy`
    takes a state out of JAX and back.
    """

    @property
    def takes_host_memory(self) -> bool:
        """Whether the states count against what the host has free."""
        return True

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


class HostCopy(NamedTuple):
    """A state outside of JAX.

    Attributes:
        structure: of the state.
        leaves: for every leaf its `ArraySpec`, or the leaf itself where it is no JAX array.
        shards: those of all arrays that this process holds, one after the other.
    """

    structure: Any
    leaves: list[Any]
    shards: list[Any]

    @classmethod
    def begun(cls, state: State) -> "HostCopy":
        """``state``, its shards on their way to the host."""
        leaves, structure = jax.tree.flatten(state)
        parts = [to_shards(leaf) if isinstance(leaf, jax.Array) else (leaf, []) for leaf in leaves]
        shards = [shard for _, own in parts for shard in own]
        return cls(structure, [spec for spec, _ in parts], shards)

    def arrived(self) -> "HostCopy":
        """The same with NumPy arrays for shards; waits for them."""
        return self._replace(shards=[np.asarray(shard) for shard in self.shards])

    def state(self) -> State:
        """The state, back in JAX."""
        shards = iter(self.shards)

        def leaf(spec: Any) -> PyTree:
            if not isinstance(spec, ArraySpec):
                return spec
            return from_shards(spec, [next(shards) for _ in spec.places()])

        return jax.tree.unflatten(self.structure, [leaf(spec) for spec in self.leaves])


class Copier(NamedTuple):
    """A thread that copies states off the device while the device goes on computing.

    One at a time: whoever brings the next waits until the last is down, so that no more than two states
    are on their way.
    """

    thread: ThreadPoolExecutor
    under_way: list[Future[None]]

    @classmethod
    def start(cls) -> "Copier":
        """One without work."""
        return cls(ThreadPoolExecutor(1, thread_name_prefix="rfho-shelf"), [])

    def begin(self, job: Callable[[], None]) -> None:
        """Begins ``job`` once the last is done; raises what that one raised."""
        self.wait()
        self.under_way.append(self.thread.submit(job))

    def wait(self) -> None:
        """Until nothing is under way; raises what went wrong."""
        while self.under_way:
            self.under_way.pop().result()

    def stop(self) -> None:
        """Ends the thread, after what it is doing; says nothing about how that went."""
        self.thread.shutdown(cancel_futures=True)


class HostSlots(NamedTuple):
    """The handle of a `HostShelf`: its states by slot, and who copies them."""

    copies: dict[int, HostCopy]
    copier: Copier


class HostShelf(AbstractShelf):
    """States as NumPy arrays in the memory of the host.

    A state is copied while the next segment is computed.
    """

    def open(self, like: State) -> HostSlots:
        """No states yet."""
        return HostSlots({}, Copier.start())

    def put(self, handle: HostSlots, slot: int, state: State) -> None:
        """Copies to the host, while the caller goes on."""
        copy = HostCopy.begun(state)
        handle.copier.begin(lambda: handle.copies.update({slot: copy.arrived()}))

    def get(self, handle: HostSlots, slot: int) -> State:
        """Copies to the device."""
        handle.copier.wait()
        return handle.copies[slot].state()

    def close(self, handle: HostSlots) -> None:
        """Forgets them."""
        handle.copier.stop()
        handle.copies.clear()
