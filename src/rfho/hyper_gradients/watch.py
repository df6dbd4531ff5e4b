"""What an estimate that is driven from Python tells while it goes on, and what is kept of it."""

from collections.abc import Callable

import jax

from rfho.typing import PyTree


def silent(done: int, total: int) -> None:
    """Shows nothing."""


class Watch:
    """Hears of every segment of an estimate, and may keep what a later process can go on from.

    This one hears and keeps nothing. All watches are equal: a program that was compiled for a method under one of
    them serves under any other.

    Example:
        >>> class Shown(Watch):
        ...     def segment(self, done, total):
        ...         print(f"{done} of {total}")
        >>> Shown() == Watch()
        True
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watch)

    def __hash__(self) -> int:
        return hash(Watch)

    def begin(self, given: PyTree) -> None:
        """An estimate begins, of which everything follows from ``given`` and the problem."""

    def segment(self, done: int, total: int) -> None:
        """So many of its segments are done."""

    def wait(self, computed: PyTree) -> None:
        """Until a program has computed something."""
        jax.block_until_ready(computed)

    def is_due(self) -> bool:
        """Whether it is time to keep something; asked after every segment."""
        return False

    def keep(self, name: str, value: Callable[[], PyTree], *, again: bool = False) -> None:
        """Keeps a value; one that is kept already only ``again``."""

    def look(self) -> None:
        """After every segment, once what was due is kept: whatever this raises ends the estimate."""

    def found(self, name: str, like: PyTree) -> PyTree | None:
        """What an interrupted process has kept of this same estimate, in the form of ``like``."""
        return None
