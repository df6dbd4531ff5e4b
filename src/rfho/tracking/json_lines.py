"""A run as a text file: one JSON object a line, for scripts and data frames."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfho
from rfho.files import append_line, make_folder, sync_file
from rfho.tracking.names import Setting
from rfho.tracking.tracker import AbstractTracker


class JsonLines(AbstractTracker):
    """Appends a run to a file: a line for its start, each step, each finding and its end.

    Each line has its ``event``: ``start`` with the settings, ``step`` with the numbers under their names,
    ``finding``, ``close``. A number that is not finite is null. A line is whole or not there, also if the process
    is killed; it needs no package. Of a step that is taken again both lines are there, the later one with more
    ``retries``: that one stands.

    Args:
        path: the file; its folder is made if there is none.
        settings: your own parameters of the run.

    Example:
        >>> from rfho.tracking import JsonLines
        >>> tracker = JsonLines("runs/lr.jsonl", {"data": "digits"})

        Afterwards ``pandas.read_json("runs/lr.jsonl", lines=True)`` is a table.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.path = Path(path)

    def open(self, settings: dict[str, Setting]) -> None:
        """Writes the settings."""
        make_folder(self.path.parent)
        self._write({"event": "start", "settings": settings})

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Writes the numbers of a step."""
        self._write({"event": "step", "step": step, **numbers})

    def say(self, kind: str, text: str, step: int) -> None:
        """Writes a finding."""
        self._write({"event": "finding", "step": step, "kind": kind, "text": text})

    def end(self, result: rfho.Result) -> None:
        """Writes why the run ended."""
        self._write({"event": "close", "result": result.name, "text": result.value})
        sync_file(self.path)

    def _write(self, line: dict[str, Any]) -> None:
        append_line(self.path, json.dumps(_finite(line), ensure_ascii=False, allow_nan=False))


def _finite(item: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(item, dict):
        return {name: _finite(value) for name, value in item.items()}
    return None if isinstance(item, float) and not math.isfinite(item) else item
