"""A run as TensorBoard shows it, written by tensorboardX: no TensorFlow is needed."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfho
from rfho.errors import needed
from rfho.tracking.names import Setting
from rfho.tracking.tracker import AbstractTracker

_SECONDS_UNTIL_WRITTEN = 5


class TensorBoard(AbstractTracker):
    """Writes an event file into a folder: ``tensorboard --logdir runs`` shows all folders below ``runs``.

    Numbers are scalars, findings texts, and the settings are a row of the page HParams with the objective beside
    it. A step that is taken again takes the place of what was there, and of all that came after it; of several
    members that go back by themselves, all points stay. Needs the extra ``tensorboard``.

    Args:
        folder: where the event file goes, one folder for each run. A run that goes on after an interruption adds
            a file to the same folder.
        settings: your own parameters of the run.

    Example:
        >>> from rfho.tracking import TensorBoard
        >>> tracker = TensorBoard("runs/lr", {"data": "digits"})
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.folder = Path(folder)
        self._writer: Any = None
        self._last: Any = None

    def open(self, settings: dict[str, Setting]) -> None:
        """Opens the event file, with the settings at its head."""
        board = needed("tensorboardX", by="TensorBoard", extra="tensorboard")
        summary = needed("tensorboardX.summary", by="TensorBoard", extra="tensorboard")
        # The name of a file is the second in which it is made: without more, one run would replace another.
        unique = f".{uuid.uuid4().hex[:8]}"
        self._writer = board.SummaryWriter(
            str(self.folder), flush_secs=_SECONDS_UNTIL_WRITTEN, filename_suffix=unique
        )
        columns, row, self._last = summary.hparams(settings, {"objective": 0.0})
        for part in (columns, row):
            self._writer.file_writer.add_summary(part)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """All scalars of a step as one event."""
        proto = needed("tensorboardX.proto.summary_pb2", by="TensorBoard", extra="tensorboard")
        values = [proto.Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
        self._writer.file_writer.add_summary(proto.Summary(value=values), step)

    def back(self, step: int) -> None:
        """Says that the session begins again there: readers leave out numbers of this step and of later ones."""
        if self._members > 1:
            return
        proto = needed("tensorboardX.proto.event_pb2", by="TensorBoard", extra="tensorboard")
        begins = proto.SessionLog(status=proto.SessionLog.START)
        self._writer.file_writer.add_event(proto.Event(session_log=begins), step)

    def say(self, kind: str, text: str, step: int) -> None:
        """A text, on the page Text."""
        self._writer.add_text(f"finding/{kind}", text, step)

    def end(self, result: rfho.Result) -> None:
        """Closes the file; the row of settings is marked as done if the run did not fail."""
        self._writer.add_text("result", f"{result.name}: {result.value}")
        if not result.failed:
            self._writer.file_writer.add_summary(self._last)
        self._writer.close()
