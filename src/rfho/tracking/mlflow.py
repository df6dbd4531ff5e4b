"""A run as MLflow keeps it: on a server, in a database or in a folder."""

from collections.abc import Mapping
from typing import Any

import rfho
from rfho.errors import needed
from rfho.tracking.names import Setting
from rfho.tracking.tracker import AbstractTracker


class MLflow(AbstractTracker):
    """Logs to the tracking server and the experiment that are set: ``mlflow.set_tracking_uri``, ``set_experiment``.

    Numbers are metrics, settings are parameters, findings are the file ``findings.txt`` among the artifacts. Of a
    step that is taken again a metric has two values, the one that stands with the later timestamp. Inside a run
    that is active already, a nested one is begun. Each outer step waits until its numbers are stored. Needs the
    extra ``mlflow``.

    Args:
        name: of the run; MLflow makes one up by default.
        run_id: of an earlier run, to go on with it.
        settings: your own parameters of the run.

    Example:
        >>> from rfho.tracking import MLflow
        >>> tracker = MLflow("rate and penalty")
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        run_id: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(settings)
        self.name = name
        self.run_id = run_id
        self._here: str | None = None
        self._findings: list[str] = []

    def open(self, settings: dict[str, Setting]) -> None:
        """Begins a run with its parameters."""
        mlflow, self._findings = self._mlflow(), []
        nested = mlflow.active_run() is not None
        run = mlflow.start_run(run_id=self.run_id, run_name=self.name, nested=nested)
        self._here = run.info.run_id
        # A parameter is for ever: a run that goes on keeps those that it began with.
        there = run.data.params
        mlflow.log_params({name: item for name, item in settings.items() if name not in there})

    def log(self, numbers: dict[str, float], step: int) -> None:
        """The metrics of a step."""
        self._mlflow().log_metrics(numbers, step=step, run_id=self._here)

    def say(self, kind: str, text: str, step: int) -> None:
        """One more line of the findings."""
        self._findings.append(f"step {step}, {kind}: {text}\n")
        self._mlflow().log_text("".join(self._findings), "findings.txt", run_id=self._here)

    def end(self, result: rfho.Result) -> None:
        """Ends the run: finished, failed, or killed by its caller."""
        mlflow = self._mlflow()
        mlflow.set_tag("result", f"{result.name}: {result.value}")
        stopped = "KILLED" if result is rfho.Result.STOPPED else "FINISHED"
        mlflow.end_run("FAILED" if result.failed else stopped)

    def _mlflow(self) -> Any:
        return needed("mlflow", by="MLflow", extra="mlflow")
