"""A method's estimate within an outer loop: it is told about, it can be interrupted, and a run may keep it."""

import contextlib
import signal
import warnings
from collections.abc import Callable

from rfho.checks.diagnosis import Finding, Kind, Severity, Where
from rfho.hyper_gradients.watch import Watch
from rfho.outer.events import AbstractRun, Audience, Standing
from rfho.outer.peers import Peers
from rfho.outer.signals import LONG, StopSignals
from rfho.typing import PyTree

_MEANWHILE = (
    "the first signal (Ctrl-C, SIGTERM) is obeyed after it, while what was finished is saved at once; the second "
    "leaves at once, without it"
)


_TOGETHER = (
    "the first signal (Ctrl-C, SIGTERM) to any process ends all of them after it, with all of it saved; the second "
    "leaves at once, without it, and the others cannot go on"
)


class Interruptible(Watch):
    """Tells of segments, and ends an estimate after the one in which a signal has come; first it is kept.

    Args:
        audience: is told.
        signals: what may end it.
        run: what keeps it; None if nothing does.
        standings: gives where all members stand after the last whole outer step.
        peers: the processes of the run. If there are several, an estimate is neither ended within itself nor kept.
    """

    def __init__(
        self,
        audience: Audience,
        signals: StopSignals,
        run: AbstractRun | None,
        standings: Callable[[], tuple[Standing, ...]],
        peers: Peers,
    ) -> None:
        self._audience, self._signals = audience, signals
        self._run, self._alone = (run if peers.alone else None), peers.alone
        self._standings = standings
        self._leaving = self._said = self._over = False

    def over(self) -> None:
        """The run is closed: nothing is saved or told any more."""
        self._over = True

    def begin(self, given: PyTree) -> None:
        """As what keeps it."""
        self._kept.begin(given)

    def segment(self, done: int, total: int) -> None:
        """Tells."""
        self._audience.segment(done, total)

    def wait(self, computed: PyTree) -> None:
        """As its base, but for a second signal.

        Raises:
            KeyboardInterrupt: it has come.
        """
        waiting = bool(self._signals.received)

        def first() -> None:
            nonlocal waiting
            if not waiting:
                waiting = True
                self._came()

        self._signals.wait(computed, long=self._long, first=first)

    def _long(self) -> None:
        """Says once that programs take long, and what signals do meanwhile."""
        if self._said or self._over:
            return
        self._said = True
        message = f"a program of an outer step takes more than {LONG:.0f} s: {self._meanwhile}"
        if self._alone:
            message += ". LongReverseHyperGradient(segment=…) has programs as short as you like"
        self._audience.finding(Finding(Kind.LONG_PROGRAM, Where(), message, Severity.NOTE))

    def _came(self) -> None:
        """What was finished is saved while the first signal waits, which is said."""
        if self._over:
            return
        if self._run is not None:
            self._run.keep(self._standings, last=True)
        name = signal.Signals(self._signals.received[0]).name
        with contextlib.suppress(UserWarning):  # whoever has made them errors is about to leave
            warnings.warn(
                f"{name} came within a program: {self._meanwhile}", UserWarning, stacklevel=2
            )

    @property
    def _meanwhile(self) -> str:
        return _MEANWHILE if self._alone else _TOGETHER

    def is_due(self) -> bool:
        """Also once a signal has come, but not after the second, which has no time."""
        self._leaving = self._alone and bool(self._signals.received)
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
