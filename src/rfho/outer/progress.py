"""Progress of an outer loop on the terminal."""

from typing import Any

from rfho.errors import Result
from rfho.outer.events import Listener, Start
from rfho.outer.lines import shown
from rfho.outer.report import Report


class RichProgress(Listener):
    """A bar by the library rich (in the extra ``cli``): steps, objective, time gone and to go.

    Args:
        title: what stands before the bar.

    Example:
        >>> import rfho
        >>> progress = rfho.RichProgress("cleaning")
    """

    def __init__(self, title: str = "tuning") -> None:
        self.title = title
        self._bar: Any = None
        self._tasks: list[Any] = []

    def start(self, run: Start) -> None:
        """Opens the bar.

        Raises:
            ImportError: rich is not installed.
        """
        try:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
        except ImportError as error:
            raise ImportError("RichProgress needs rich: pip install 'rfho[cli]'") from error
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar.start()
        names = (
            [self.title]
            if len(run.hypers) == 1
            else [f"{self.title} {i}" for i in range(len(run.hypers))]
        )
        self._tasks = [self._bar.add_task(name, total=run.total, text="") for name in names]

    def step(self, report: Report) -> None:
        """Moves the bar of the report's member."""
        task = self._tasks[report.member]
        self._bar.update(task, completed=report.step, text=f"f = {shown(report.value)}")

    def segment(self, done: int, total: int) -> None:
        """Shows how far the step is."""
        for task in self._tasks[:1]:
            self._bar.update(task, text=f"segment {done} of {total}")

    def close(self, result: Result) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
