"""A run as Weights & Biases keeps it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfho
from rfho.errors import needed
from rfho.tracking.names import Setting
from rfho.tracking.tracker import AbstractTracker


class WandB(AbstractTracker):
    """Logs to a run of Weights & Biases: one that you have begun, or a new one.

    A row of the history has the number of its outer step. Where a step is taken again, or your run has rows
    already, it has the next number that is free, as none may come twice; ``outer_step`` in it says which it is.

    Settings are its config, numbers its history, findings a text of its summary. Without a network
    set ``WANDB_MODE=offline``, and send the folder later by ``wandb sync``. Needs the extra ``wandb``.

    Args:
        project: of a new run.
        run: what ``wandb.init(...)`` has returned, for its many options; you end it yourself.
        folder: where a new run writes; the current folder by default.
        settings: your own parameters of the run.

    Example:
        >>> from rfho.tracking import WandB
        >>> tracker = WandB("digits", folder="runs")
    """

    by_rows = True

    def __init__(
        self,
        project: str | None = None,
        *,
        run: Any = None,
        folder: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(settings)
        self.project = project
        self.run = run
        self.folder = folder
        self._here: Any = None
        self._before: int | None = None
        self._findings: list[str] = []

    def open(self, settings: dict[str, Setting]) -> None:
        """Begins a run, or takes yours, and adds the settings to its config."""
        self._here, self._before, self._findings = self.run, None, []
        if self._here is None:
            wandb = needed("wandb", by="WandB", extra="wandb")
            self._here = wandb.init(project=self.project, dir=self.folder)
        self._here.config.update(settings, allow_val_change=True)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """One row of the history; members of one run share it."""
        if self._before is None:
            self._before = max(0, self._here.step - step)
        self._here.log(numbers, step=self._before + step)

    def say(self, kind: str, text: str, step: int) -> None:
        """One more line in the summary."""
        self._findings.append(f"step {step}, {kind}: {text}")
        self._here.summary["findings"] = "\n".join(self._findings)

    def end(self, result: rfho.Result) -> None:
        """Ends the run if it is not yours."""
        self._here.summary["result"] = f"{result.name}: {result.value}"
        if self.run is None:
            self._here.finish(exit_code=int(result.failed))
