"""A method's estimate within an outer loop: it is told about, it can be interrupted, and a run may keep it."""

from collections.abc import Callable

from rfho.hyper_gradients.watch import Watch
from rfho.outer.events import AbstractRun
from rfho.outer.signals import StopSignals
from rfho.typing import PyTree


class Interruptible(Watch):
    """Tells of segments, and ends an estimate after the one in which a signal has come; first it is kept.

    Args:
        told: called with (segments done, segments in all).
        signals: what may end it.
        run: what keeps it; None if nothing does.
    """

    def __init__(
        self, told: Callable[[int, int], None], signals: StopSignals, run: AbstractRun | None
    ) -> None:
        self._told, self._signals, self._run = told, signals, run
        self._leaving = False

    def begin(self, given: PyTree) -> None:
        """As what keeps it."""
        self._kept.begin(given)

    def segment(self, done: int, total: int) -> None:
        """Tells."""
        self._told(done, total)

    def is_due(self) -> bool:
        """Also once a signal has come, but not after the second, which has no time."""
        self._leaving = bool(self._signals.received)
        return len(self._signals.received) == 1 if self._leaving else self._kept.is_due()

    def look(self) -> None:
        """Ends it if that is wished; a signal that came while something was kept waits for the next segment.

        Raises:
            KeyboardInterrupt: a signal has come.
        """
        if self._leaving:
            self._signals.look()

    def keep(self, name: str, value: Callable[[], PyTree], *, again: bool = False) -> None:
        """As what keeps it."""
        self._kept.keep(name, value, again=again)

    def found(self, name: str, like: PyTree) -> PyTree | None:
        """As what keeps it."""
        return self._kept.found(name, like)

    @property
    def _kept(self) -> Watch:
        return Watch() if self._run is None else self._run.estimate_kept()
