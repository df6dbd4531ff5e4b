"""The reports of a run outside of the process, number by number, as Python and NumPy have them.

All reports of a run are equally long: λ, its hypergradient, the objective and the statistics have one form
from the first to the last. They lie one after the other in one file, in no format that could run code.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rfho.files import damaged
from rfho.outer import Report
from rfho.runs.log import Log
from rfho.typing import PyTree

_NUMBERS = struct.Struct("<qiid")  # step, member, retries, seconds


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

    @property
    def size(self) -> int:
        """Bytes of a report."""
        numbers = len(jax.tree.leaves(self.value)) + len(self.stats)
        arrays = sum(_nbytes(leaf) for leaf in jax.tree.leaves(self.free))
        return _NUMBERS.size + 8 * numbers + 2 * arrays

    def encoded(self, report: Report) -> bytes:
        """A report as bytes."""
        learned = jax.tree.leaves(self.learned(report.hyper))
        arrays = [*learned, *jax.tree.leaves(report.hypergradient)]
        numbers = [*jax.tree.leaves(report.value), *(report.stats[name] for name in self.stats)]
        return b"".join(
            [
                _NUMBERS.pack(report.step, report.member, report.retries, report.seconds),
                np.asarray(numbers, "<f8").tobytes(),
                *(np.ascontiguousarray(array).tobytes() for array in arrays),
            ]
        )

    def decoded(self, content: bytes) -> Report:
        """A report of bytes."""
        step, member, retries, seconds = _NUMBERS.unpack_from(content)
        values, structure = jax.tree.flatten(self.value)
        count = len(values) + len(self.stats)
        numbers = np.frombuffer(content, "<f8", count, _NUMBERS.size).tolist()
        learned, start = self._arrays(content, _NUMBERS.size + 8 * count)
        hypergradient, _ = self._arrays(content, start)
        hyper = self.joined(learned)
        value = jax.tree.unflatten(structure, numbers[: len(values)])
        stats = dict(zip(self.stats, numbers[len(values) :], strict=True))
        return Report(step, hyper, value, hypergradient, stats, seconds, member, retries)

    def learned(self, hyper: PyTree) -> PyTree:
        """The learned leaves of λ; None elsewhere."""
        return jax.tree.map(
            lambda free, leaf: None if free is None else leaf, self.free, hyper, is_leaf=_is_none
        )

    def joined(self, learned: PyTree) -> PyTree:
        """λ of its learned leaves."""
        return jax.tree.map(
            lambda leaf, old: old if leaf is None else leaf, learned, self.hyper, is_leaf=_is_none
        )

    def _arrays(self, content: bytes, start: int) -> tuple[PyTree, int]:
        leaves, structure = jax.tree.flatten(self.free)
        arrays: list[np.ndarray] = []
        for leaf in leaves:
            flat = np.frombuffer(content, leaf.dtype, int(np.prod(leaf.shape)), start)
            arrays.append(flat.reshape(leaf.shape).copy())
            start += _nbytes(leaf)
        return jax.tree.unflatten(structure, arrays), start


def read_reports(log: Log, forms: Sequence[Form]) -> list[list[Report]]:
    """All reports of a log, for each member.

    Args:
        log: where they are.
        forms: of the members, all equally long.

    Raises:
        DataFormatError: the log does not hold whole reports of these members, step after step.
    """
    size, total = forms[0].size, log.place.size
    found: list[list[Report]] = [[] for _ in forms]
    if total % size:
        raise damaged(log.path, f"has {total} bytes, but its reports have {size} each")
    for start in range(0, total, size):
        content = log.read(start, size)
        _, member, _, _ = _NUMBERS.unpack_from(content)
        if not 0 <= member < len(forms):
            raise damaged(log.path, f"has a report of the member {member} of {len(forms)}")
        report = forms[member].decoded(content)
        if found[member] and report.retries > found[member][-1].retries:
            del found[member][max(0, report.step - 1) :]  # what was taken back
        if report.step != len(found[member]) + 1:
            raise damaged(log.path, f"has step {report.step} after step {len(found[member])}")
        found[member].append(report)
    return found


def _nbytes(leaf: Any) -> int:
    return int(np.prod(leaf.shape)) * leaf.dtype.itemsize


def _is_none(leaf: Any) -> bool:
    return leaf is None
