"""What all trackers share: events of a run in, named numbers, parameters and texts out."""

import abc
from collections.abc import Mapping
from typing import Any

import rfho
from rfho.checks import Finding
from rfho.outer import Report, Start
from rfho.tracking.names import Setting, distinct, of_member, parameters, scalars, setting


class AbstractTracker(rfho.Listener, abc.ABC):
    """A listener that hands a run on to a tool. Write four methods to add one of your own.

    A step that is taken again (see `rfho.Retry`) is logged again. Where a tool wants numbers that only grow, set
    ``by_rows``: what `log` gets as its step is then the number of a row, and the outer step is the number
    ``outer_step`` in it.

    Args:
        settings: your own parameters of the run, beside those that it has by itself.

    Example:
        >>> from rfho.tracking import AbstractTracker
        >>> class Printed(AbstractTracker):
        ...     def open(self, settings):
        ...         print(settings["horizon"])
        ...
        ...     def log(self, numbers, step):
        ...         print(step, round(numbers["objective"], 2))
        ...
        ...     def say(self, kind, text, step):
        ...         print(text)
        ...
        ...     def end(self, result):
        ...         print(result.value)
    """

    by_rows: bool = False
    """Whether steps are told as rows, of which none comes twice."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = dict(settings or {})
        self._members = 1
        self._last_step = self._last_member = self._row = 0
        self._steps: dict[int, int] = {}
        self._is_open = False

    @abc.abstractmethod
    def open(self, settings: dict[str, Setting]) -> None:
        """A run begins."""

    @abc.abstractmethod
    def log(self, numbers: dict[str, float], step: int) -> None:
        """The numbers of one outer step."""

    @abc.abstractmethod
    def say(self, kind: str, text: str, step: int) -> None:
        """A finding."""

    @abc.abstractmethod
    def end(self, result: rfho.Result) -> None:
        """The run ends; everything has to be where it is looked for when this returns."""

    def back(self, step: int) -> None:
        """Outer step ``step`` of a member comes next, though it, or a later one, has been logged already."""

    def start(self, run: Start) -> None:
        """Opens a run with its parameters.

        Raises:
            ImportError: the package of the tracker is not installed.
        """
        self._members, self._steps = len(run.hypers), {}
        self._last_step = self._last_member = self._row = 0
        own = [(name, setting(value)) for name, value in self.settings.items()]
        self.open(distinct([*parameters(run).items(), *own]))
        self._is_open = True

    def step(self, report: Report) -> None:
        """Logs the numbers of a step; of several members each has its number before its names."""
        # A run that goes on in a new process may have been further when the last one was killed.
        if report.step != self._steps.get(report.member, 0) + 1:
            self.back(report.step)
        self._last_step = self._steps[report.member] = report.step
        before = of_member(report.member, self._members)
        numbers = {f"{before}{name}": number for name, number in scalars(report).items()}
        if self.by_rows:
            numbers[f"{before}outer_step"] = float(report.step)
        self.log(numbers, self._next_row(report) if self.by_rows else report.step)

    def finding(self, finding: Finding) -> None:
        """Passes a finding on, at the outer step at which it was made."""
        step = finding.where.step
        self.say(finding.kind.name, str(finding), self._last_step + 1 if step is None else step)

    def close(self, result: rfho.Result) -> None:
        """Ends the run."""
        if self._is_open:
            self._is_open = False
            self.end(result)

    def _next_row(self, report: Report) -> int:
        """As the outer step while none is taken again; members that are at work together share theirs."""
        together = report.member > self._last_member
        self._row = max(report.step, self._row if together else self._row + 1)
        self._last_member = report.member
        return self._row
