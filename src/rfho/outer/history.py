"""The reports of a member, in as little memory as they need.

A report as an object takes about a kilobyte, its numbers a few bytes each. They are kept as bytes: the latest
mebibyte in memory, what is older in a file without a name, which vanishes with the history. So memory does not
grow with the number of outer steps, and nothing of the history is lost.
"""

import contextlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from rfho.outer.form import HEAD, Form
from rfho.outer.report import Report

_IN_MEMORY = 2**20
_AT_ONCE = 2**20
_SECONDS = HEAD.size - 8


class History(Sequence[Report]):
    """The reports of a member, in order; read like a tuple of them, each made when it is asked for.

    Reports that cannot be bytes of one length, as such with arrays that span several processes, are kept as they
    are.

    Args:
        reports: the first ones.

    Example:
        >>> import numpy as np, rfho
        >>> History = rfho.outer.History
        >>> report = rfho.outer.Report(1, np.float64(0.5), 2.0, np.float64(3.0), {}, 0.25)
        >>> history = History([report, report._replace(step=2)])
        >>> len(history), history[-1].step, [each.value for each in history[:1]]
        (2, 2, [2.0])
    """

    def __init__(self, reports: Iterable[Report] = ()) -> None:
        self._form: Form | None = None
        self._plain: list[Report] = []
        # Reports in memory, and how many are in the file.
        self._recent, self._stored = bytearray(), 0
        self._file: Any = None
        self._size = 0
        for report in reports:
            self.append(report)

    def append(self, report: Report) -> None:
        """Adds the next one."""
        if self._form is None and not self._plain:
            form = Form.of(report)
            if form.fits(report):
                self._form, self._size = form, form.size
        if self._form is None or not self._form.fits(report):
            if self._form is not None:
                self._plain, self._form = list(self), None
                self._recent.clear()
            self._plain.append(report)
            return
        self._recent += self._form.encoded(report)
        if len(self._recent) > _IN_MEMORY:
            self._store()

    def cut(self, count: int) -> None:
        """Forgets all but the first ``count``."""
        del self._plain[count:]
        self._stored = min(self._stored, count)
        if self._form is not None:
            del self._recent[(count - self._stored) * self._size :]

    @property
    def seconds(self) -> float:
        """Of all steps together."""
        if self._form is None:
            return sum((report.seconds for report in self._plain), 0.0)
        return sum(
            float(np.ndarray(len(part) // self._size, "<f8", part, _SECONDS, self._size).sum())
            for part in self._parts()
        )

    def __len__(self) -> int:
        if self._form is None:
            return len(self._plain)
        return self._stored + len(self._recent) // self._size

    @overload
    def __getitem__(self, at: int) -> Report: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Report, ...]: ...

    def __getitem__(self, at: int | slice) -> Report | tuple[Report, ...]:
        places = range(len(self))[at]
        return self._read(places) if isinstance(places, int) else tuple(map(self._read, places))

    def __iter__(self) -> Iterator[Report]:
        return map(self._read, range(len(self)))

    def __eq__(self, other: object) -> bool:
        """As tuples of reports."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """How many there are."""
        return f"<history of {len(self)} outer steps>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Its reports, wherever they lie."""
        return History, (tuple(self),)

    def _read(self, i: int) -> Report:
        if self._form is None:
            return self._plain[i]
        if i >= self._stored:
            start = (i - self._stored) * self._size
            return self._form.decoded(bytes(self._recent[start : start + self._size]))
        self._file.seek(i * self._size)
        return self._form.decoded(self._file.read(self._size))

    def _parts(self) -> Iterator[bytes]:
        """All reports, many at a time."""
        many = max(1, _AT_ONCE // self._size)
        for start in range(0, self._stored, many):
            self._file.seek(start * self._size)
            yield self._file.read(min(many, self._stored - start) * self._size)
        if self._recent:
            yield bytes(self._recent)

    def _store(self) -> None:
        """Takes what is in memory to the file; on a disk that is full it stays where it is."""
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as this)
                weakref.finalize(self, self._file.close)
            self._file.seek(self._stored * self._size)
            if self._file.write(self._recent) == len(self._recent):
                self._stored += len(self._recent) // self._size
                self._recent.clear()
