"""Who listens to an outer loop, and what is said: the one way by which a run is watched.

    start(run)    step(Report)    finding(Finding)    segment(done, total)    close(Result)

A progress bar, a folder on disk, a tracker, a pruner are listeners. One that fails is told off once and
heard no more, and the run goes on; `vital` ones end it.
"""

import abc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import optax

from rfho.checks.diagnosis import Finding, HyperGradientWarning, Kind, Severity
from rfho.errors import Result
from rfho.files import Planned
from rfho.hyper_gradients import AbstractHyperGradient, Watch
from rfho.outer.report import Best, Report
from rfho.outer.tuner import TunerState
from rfho.problem.problem import Problem
from rfho.typing import Hyper


class Start(NamedTuple):
    """What a listener is told of a run before its first step.

    Attributes:
        problem: what is tuned.
        method: how.
        hypers: λ_0 of each member.
        total: how many outer steps there will be.
        optim: the outer optimiser.
        choose: data on which the best step is chosen, if there are any.
    """

    problem: Problem
    method: AbstractHyperGradient
    hypers: tuple[Hyper, ...]
    total: int
    optim: optax.GradientTransformation
    choose: Any = None


class Listener:
    """What hears the events of a run; take it as a base and write the ones that matter.

    Example:
        >>> import rfho
        >>> class Values(rfho.Listener):
        ...     def __init__(self):
        ...         self.seen = []
        ...
        ...     def step(self, report):
        ...         self.seen.append(report.value)
    """

    vital: bool = False
    """Whether the run ends if this listener fails."""

    def start(self, run: Start) -> None:
        """Before the first step."""

    def step(self, report: Report) -> None:
        """After every outer step, for each member that is still running; of one that went back, a step again."""

    def finding(self, finding: Finding) -> None:
        """What the numbers of the run give rise to doubt, and what is worth knowing; once for each kind."""

    def segment(self, done: int, total: int) -> None:
        """How far the estimate of a method that is driven from Python is."""

    def close(self, result: Result) -> None:
        """After the last step, also after an error."""


class Standing(NamedTuple):
    """All of one member that it needs to go on as if nothing had happened.

    Attributes:
        state: after its last good step.
        before: one outer step earlier, where a member ends whose next objective is not finite.
        history: its reports.
        best: the lowest objective so far; None before the first step.
        told: the kinds of findings that were said.
        ended: why it ended; None while it runs.
        reason: what was raised about it, if anything was.
        retries: how often it has gone back.
        scale: what its outer steps are multiplied with.
        failed: the last outer step after which it went back.
        safe: where it had the lowest objective, if it may go back.
    """

    state: TunerState
    before: TunerState
    history: Sequence[Report] = ()
    best: Best | None = None
    told: frozenset[Kind] = frozenset()
    ended: Result | None = None
    reason: str = ""
    retries: int = 0
    scale: float = 1.0
    failed: int = 0
    safe: TunerState | None = None


def written_by_method(
    run: Start, standings: Sequence[Standing], folder: str | None = None
) -> tuple[Planned, ...]:
    """What estimates of a run write to disks, those pages included that are kept of them in a folder."""
    if not run.method.driven_from_python:
        return ()
    state = standings[0].state
    moment = eqx.filter_eval_shape(lambda p, r: p.at(0, r), run.problem, state.rest)
    return run.method.written(moment, state.free, folder)


class AbstractRun(Listener, abc.ABC):
    """A listener that also keeps the outer state and gives it back: what ``run=`` takes."""

    vital = True
    replays: bool = False
    """Whether `rfho.iterate` gives the reports of earlier runs again, before it goes on."""

    @abc.abstractmethod
    def restored(self, run: Start, standings: tuple[Standing, ...]) -> tuple[Standing, ...] | None:
        """Where all members stood when an earlier run of the same ended; None if there was none.

        Args:
            run: what would be tuned.
            standings: of all members at the start, in whose form the answer is.
        """

    def written(self, run: Start, standings: tuple[Standing, ...]) -> tuple[Planned, ...]:
        """What will be written to disks, as far as that is known; by default what the method says."""
        return written_by_method(run, standings)

    @abc.abstractmethod
    def keep(self, standings: Callable[[], tuple[Standing, ...]], *, last: bool) -> None:
        """After an outer step: gives where all stand; whether that is saved now is the run's business.

        Args:
            standings: gives it.
            last: there may be nothing after it, so that it is to be saved and waited for.
        """

    def estimate_kept(self) -> Watch:
        """What keeps an estimate that is driven from Python while it goes on; by default nothing does."""
        return Watch()

    def hurry(self) -> None:
        """Once the user has asked a second time to stop: what is finished is saved, no more. Called by a signal."""


class Warner(Listener):
    """Says findings as Python warnings."""

    def finding(self, finding: Finding) -> None:
        """One `HyperGradientWarning`; what is only worth knowing is none."""
        if finding.severity is not Severity.NOTE:
            warnings.warn(HyperGradientWarning(finding), stacklevel=6)


class Audience:
    """All listeners of a run; it knows those that have failed and are heard no more.

    Raises:
        TypeError: a listener is no `Listener`.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        for i, listener in enumerate(listeners):
            if not isinstance(listener, Listener):
                raise TypeError(
                    f"listeners[{i}] is {listener!r}, but it must be a rfho.Listener, as rfho.RichProgress()"
                )
        self.listeners = (Warner(), *listeners)
        self._silenced: set[int] = set()

    def start(self, run: Start) -> None:
        """To all; one that cannot start ends the run, as nothing is lost yet."""
        for listener in self.listeners:
            listener.start(run)

    def step(self, report: Report) -> None:
        """To all."""
        self._tell(lambda listener: listener.step(report))

    def finding(self, finding: Finding) -> None:
        """To all."""
        self._tell(lambda listener: listener.finding(finding))

    def segment(self, done: int, total: int) -> None:
        """To all."""
        self._tell(lambda listener: listener.segment(done, total))

    def close(self, result: Result) -> None:
        """To all, those that were silenced too."""
        self._silenced.clear()
        self._tell(lambda listener: listener.close(result))

    def _tell(self, event: Callable[[Listener], Any]) -> None:
        for i, listener in enumerate(self.listeners):
            if i in self._silenced:
                continue
            try:
                event(listener)
            except HyperGradientWarning:
                raise  # a warning that the user has made an error
            except Exception as error:
                if listener.vital:
                    raise
                self._silenced.add(i)
                warnings.warn(
                    f"{type(listener).__name__} failed and is heard no more, the run goes on: "
                    f"{type(error).__name__}: {error}",
                    stacklevel=5,
                )
