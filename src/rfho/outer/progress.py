"""Progress of an outer loop on the terminal; silent unless asked for."""

import abc
from typing import Any

import equinox as eqx


class AbstractProgress(eqx.Module):
    """A pair of pure-looking calls around a loop; what is shown is a side effect."""

    @abc.abstractmethod
    def start(self, total: int | None) -> Any:
        """Opens the display for ``total`` steps (None: unknown) and returns its handle."""

    @abc.abstractmethod
    def advance(self, handle: Any, step: int, text: str) -> None:
        """Shows that ``step`` steps are done, with ``text`` beside."""

    @abc.abstractmethod
    def close(self, handle: Any) -> None:
        """Closes the display, also after an error."""


class NoProgress(AbstractProgress):
    """Shows nothing."""

    def start(self, total: int | None) -> None:
        """Nothing to open."""

    def advance(self, handle: None, step: int, text: str) -> None:
        """Nothing to show."""

    def close(self, handle: None) -> None:
        """Nothing to close."""


class RichProgress(AbstractProgress):
    """A bar by the library rich (in the extra ``cli``): steps, objective, time gone and to go.

    Example:
        >>> import rfho
        >>> progress = rfho.RichProgress("cleaning")
    """

    title: str = eqx.field(static=True, default="tuning")

    def start(self, total: int | None) -> Any:
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
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bar.start()
        return bar, bar.add_task(self.title, total=total, text="")

    def advance(self, handle: Any, step: int, text: str) -> None:
        """Moves the bar."""
        bar, task = handle
        bar.update(task, completed=step, text=text)

    def close(self, handle: Any) -> None:
        """Leaves the bar as it stands."""
        handle[0].stop()
