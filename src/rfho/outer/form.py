"""Reports as bytes, number by number, as Python and NumPy have them.

All reports of a member are equally long: λ, its hypergradient, the objective and the statistics have one form
from the first to the last. No format here could run code.
Of an array that lies over several processes each has its own parts.
"""

import struct
from typing import Any, NamedTuple

import jax
import numpy as np

from rfho._programs import trees as tree
from rfho.memory.shards import ArraySpec, from_shards, is_partly_here, spec_of, to_shards
from rfho.outer.report import Report
from rfho.typing import PyTree

HEAD = struct.Struct("<qiid")
"""What a report begins with: step, member, retries, seconds."""


class Form(NamedTuple):
    """What reports have in common.

    Attributes:
        hyper: λ, with arrays or their shapes where it is learned.
        free: the same with None where it is not.
        value: the objective, any numbers at its leaves.
        stats: the names of the statistics.
    """

    hyper: PyTree
    free: PyTree
    value: PyTree
    stats: tuple[str, ...]

    @staticmethod
    def of(report: Report) -> "Form":
        """That of a report, in which the learned leaves are those of the hypergradient."""
        value = jax.tree.map(lambda _: 0.0, report.value)
        return Form(report.hyper, report.hypergradient, value, tuple(report.stats))

    @staticmethod
    def member_of(content: bytes) -> int:
        """Whose report it is; all other numbers have places that depend on the member's form."""
        return HEAD.unpack_from(content)[1]

    @property
    def size(self) -> int:
        """Bytes of a report."""
        numbers = len(jax.tree.leaves(self.value)) + len(self.stats)
        return HEAD.size + 8 * numbers + 2 * sum(map(_nbytes, jax.tree.leaves(self.free)))

    def fits(self, report: Report) -> bool:
        """Whether a report has this form, and every number of it that this process sees is on this host."""
        free = jax.tree.leaves(self.free)
        learned = jax.tree.leaves(self.learned(report.hyper))
        gradient = jax.tree.leaves(report.hypergradient)
        return (
            tuple(report.stats) == self.stats
            and len(gradient) == len(free)
            and all(
                (leaf.shape, leaf.dtype) == (like.shape, like.dtype) and _lies_alike(leaf, like)
                for leaf, like in zip([*learned, *gradient], [*free, *free], strict=True)
            )
        )

    def encoded(self, report: Report) -> bytes:
        """A report as bytes.

        Raises:
            ValueError: an array lies over several processes otherwise than the hyperparameters do.
        """
        free = jax.tree.leaves(self.free)
        learned = jax.tree.leaves(self.learned(report.hyper))
        arrays = [*learned, *jax.tree.leaves(report.hypergradient)]
        numbers = [*jax.tree.leaves(report.value), *(report.stats[name] for name in self.stats)]
        return b"".join(
            [
                HEAD.pack(report.step, report.member, report.retries, report.seconds),
                np.asarray(numbers, "<f8").tobytes(),
                *(_content(*each) for each in zip(arrays, [*free, *free], strict=True)),
            ]
        )

    def decoded(self, content: bytes) -> Report:
        """A report of bytes."""
        step, member, retries, seconds = HEAD.unpack_from(content)
        values, structure = jax.tree.flatten(self.value)
        count = len(values) + len(self.stats)
        numbers = np.frombuffer(content, "<f8", count, HEAD.size).tolist()
        learned, start = self._arrays(content, HEAD.size + 8 * count)
        hypergradient, _ = self._arrays(content, start)
        hyper = self.joined(learned)
        value = jax.tree.unflatten(structure, numbers[: len(values)])
        stats = dict(zip(self.stats, numbers[len(values) :], strict=True))
        return Report(step, hyper, value, hypergradient, stats, seconds, member, retries)

    def learned(self, hyper: PyTree) -> PyTree:
        """The learned leaves of λ; None elsewhere."""
        return jax.tree.map(
            lambda free, leaf: None if free is None else leaf,
            self.free,
            hyper,
            is_leaf=tree.is_none,
        )

    def joined(self, learned: PyTree) -> PyTree:
        """λ of its learned leaves."""
        return jax.tree.map(
            lambda leaf, old: old if leaf is None else leaf,
            learned,
            self.hyper,
            is_leaf=tree.is_none,
        )

    def _arrays(self, content: bytes, start: int) -> tuple[PyTree, int]:
        leaves, structure = jax.tree.flatten(self.free)
        arrays: list[Any] = []
        for leaf in leaves:
            spec = _spec(leaf)
            parts = [np.empty(leaf.shape, leaf.dtype)] if spec is None else spec.empty()
            for part in parts:
                flat = np.frombuffer(content, part.dtype, part.size, start)
                part[...] = flat.reshape(part.shape)
                start += part.nbytes
            arrays.append(parts[0] if spec is None else from_shards(spec, parts))
        return jax.tree.unflatten(structure, arrays), start


def _spec(like: Any) -> ArraySpec | None:
    """How an array of which this process has parts lies in the memory of the host."""
    if not is_partly_here(like):
        return None
    spec = spec_of(like)
    return spec._replace(sharding=spec.sharding.with_memory_kind("pinned_host"))


def _nbytes(like: Any) -> int:
    spec = _spec(like)
    return tree.nbytes(like) if spec is None else sum(part.nbytes for part in spec.empty())


def _lies_alike(leaf: Any, like: Any) -> bool:
    if not is_partly_here(like):
        return isinstance(leaf, np.ndarray | np.generic)
    return is_partly_here(leaf) and spec_of(leaf).places() == spec_of(like).places()


def _content(array: Any, like: Any) -> bytes:
    if not is_partly_here(array) and not is_partly_here(like):
        return np.ascontiguousarray(array).tobytes()
    if not _lies_alike(array, like):
        raise ValueError(
            f"a hypergradient of the shape {np.shape(array)} lies over several processes otherwise than its "
            "hyperparameter: lay the hyperparameter out as the data whose weight it is"
        )
    return b"".join(np.asarray(shard).tobytes() for shard in to_shards(array)[1])
