"""A run as Trackio keeps it: in a database of this machine, shown by ``trackio show``."""

from collections.abc import Mapping
from typing import Any

import rfho
from rfho.errors import needed
from rfho.tracking.names import Setting
from rfho.tracking.tracker import AbstractTracker


class Trackio(AbstractTracker):
    """Logs to a project of Trackio. Needs the extra ``trackio``.

    Settings are the config of a run, numbers its metrics, findings its alerts. Where a step is taken again, its
    numbers stand at the next step that is free, and ``outer_step`` says which it is.

    Args:
        project: the runs that are shown together.
        name: of the run; Trackio makes one up by default.
        settings: your own parameters of the run.

    Example:
        >>> from rfho.tracking import Trackio
        >>> tracker = Trackio("digits")
    """

    by_rows = True

    def __init__(
        self, project: str, *, name: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(settings)
        self.project = project
        self.name = name
        self._here: Any = None

    def open(self, settings: dict[str, Setting]) -> None:
        """Begins a run."""
        trackio = needed("trackio", by="Trackio", extra="trackio")
        self._here = trackio.init(project=self.project, name=self.name, config=settings)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """The metrics of a step."""
        self._here.log(numbers, step=step)

    def say(self, kind: str, text: str, step: int) -> None:
        """An alert."""
        self._here.alert(title=kind, text=text, step=step)

    def end(self, result: rfho.Result) -> None:
        """Writes what is still on its way."""
        trackio = needed("trackio", by="Trackio", extra="trackio")
        level = trackio.AlertLevel.ERROR if result.failed else trackio.AlertLevel.INFO
        self._here.alert(title="result", text=f"{result.name}: {result.value}", level=level)
        self._here.finish()
