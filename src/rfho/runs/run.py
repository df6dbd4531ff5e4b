"""A run that survives: what ``run=`` of the verbs takes."""

import datetime
import functools
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tomli_w

from rfho.checks import Finding
from rfho.errors import Result, WriteError, positive_int
from rfho.files import Planned, inside
from rfho.hyper_gradients import Watch
from rfho.outer import AbstractRun, Peers, Report, Sections, Standing, Start, fingerprint
from rfho.runs.about import FAILED, FINISHED, INTERRUPTED, RUNNING, read_about, write_about
from rfho.runs.course import add_course, row_of
from rfho.runs.forecast import written
from rfho.runs.keeper import REPORTS, Keeper
from rfho.runs.owner import GUARD, OWNER, RunFolderError
from rfho.runs.pace import Pace
from rfho.runs.report import write_report
from rfho.runs.run_folder import RunFolder
from rfho.runs.together import claimed, is_part, peers_of_run

MINUTE = datetime.timedelta(minutes=1)
"""How often a snapshot is made by default."""

OWN = "tune"
"""What stands for the experiment in the folder of a run of the user's own."""


class Run(AbstractRun):
    """A folder in which a run is kept, so that it can be watched, told, and gone on with after any end.

    Pass it as ``run=`` to `rfho.tune`, `rfho.iterate` or `rfho.tune_many`. The folder holds the settings, one line
    for each outer step, snapshots of the outer state, pictures of the objective and of every hyperparameter,
    a report as one HTML page, and how the run stands. If a run was interrupted or killed there, the same call
    goes on from the last snapshot, and ends with the same bits as a run that was never interrupted (on the
    same kind of device, by the same programs). A finished run is given back as it ended.

    Where arrays lie over several processes, each makes the same call with the same folder, which all have to see.
    Each keeps its own parts; the first one owns the folder, and writes what is read by people.

    Args:
        folder: new, empty, or of an earlier run of the same.
        every: a snapshot after so many outer steps, or after so much time.
        keep: how many snapshots stay.
        allow: what may be different from the run that is gone on with, as its refusal names it: "jax",
            "functions", "data", ….
        title: of the report; the folder's name by default.

    Raises:
        TypeError, ValueError: an argument makes no sense, or several starts are to lie over several processes.

    Example:
        >>> import jax.numpy as jnp, optax, rfho, tempfile
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = rfho.tune(problem, {"lr": 0.1}, steps=3, run=rfho.Run(folder))
        ...     longer = rfho.tune(problem, {"lr": 0.1}, steps=5, run=rfho.Run(folder))
        >>> len(first.history), [report.step for report in longer.history]
        (3, [1, 2, 3, 4, 5])
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | datetime.timedelta = MINUTE,
        keep: int = 3,
        allow: Sequence[str] = (),
        title: str = "",
    ) -> None:
        self.folder = Path(folder)
        if not isinstance(every, datetime.timedelta):
            every = positive_int(every, "every", "Run")
        self.pace = Pace(every, positive_int(keep, "keep", "Run"))
        self.allow = tuple(allow)
        self.title = title or self.folder.name or "run"
        self._open: _Open | None = None

    def written(self, run: Start, standings: tuple[Standing, ...]) -> tuple[Planned, ...]:
        """Snapshots, pages and history."""
        return written(self.folder, run, standings, self.pace)

    def restored(self, run: Start, standings: tuple[Standing, ...]) -> tuple[Standing, ...] | None:
        """Takes the folder, and gives where all members stood when an earlier run ended there.

        Raises:
            RunFolderError: the folder belongs to a run that goes on, or holds something else.
            SnapshotError: the earlier run was another one, or none of its snapshots is whole.
            WriteError: the folder cannot be written to.
        """
        peers = peers_of_run(run, standings)
        folder = claimed(self.folder, peers, _check_holds_a_run)
        try:
            keeper, found, remarks = taken_over(
                folder.path, run, standings, pace=self.pace, allow=self.allow, peers=peers
            )
        except BaseException:
            folder.release()
            raise
        for remark in remarks:
            warnings.warn(f"{remark}; the one before it is taken", stacklevel=5)
        self._open = _Open(folder, keeper, peers)
        return found

    def start(self, run: Start) -> None:
        """Writes what is known of the run."""
        self._opened.describe(run, self.title)

    def step(self, report: Report) -> None:
        """Writes a line."""
        self._opened.keeper.add(report)

    def finding(self, finding: Finding) -> None:
        """Notes it for the report."""
        self._opened.findings.append(str(finding))

    def keep(self, standings: Callable[[], tuple[Standing, ...]], *, last: bool) -> None:
        """Saves a snapshot, if it is time."""
        self._opened.keeper.keep(standings, last=last)

    def estimate_kept(self) -> Watch:
        """Keeps it in the folder."""
        return self._opened.keeper.pages

    def hurry(self) -> None:
        """There is no time for pictures."""
        if self._open is not None:
            self._open.hurried = True

    def close(self, result: Result) -> None:
        """Saves where the run ended, makes the report, and gives the folder up.

        Raises:
            WriteError: the disk did not take something; the folder says so, and its snapshots are whole.
        """
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close(result)

    @property
    def _opened(self) -> "_Open":
        if self._open is None:
            raise RuntimeError(f"{self.folder} is not open: pass it as run= of rfho.tune")
        return self._open


class _Open:
    """A run whose folder this process owns; of several the first one tells of it."""

    def __init__(self, folder: RunFolder, keeper: Keeper, peers: Peers) -> None:
        self.folder, self.keeper, self.peers = folder, keeper, peers
        self.findings: list[str] = []
        self.hurried = False

    def describe(self, run: Start, title: str) -> None:
        """Writes the settings and how the run stands."""
        if not self.peers.leads:
            return
        path = inside(self.folder.path, "run.json")
        if path.exists():  # it goes on
            write_about(path, read_about(path)._replace(status=RUNNING, reason="", seconds=None))
            return
        members = "" if len(run.hypers) == 1 else f", {len(run.hypers)} starts side by side"
        learned = len(jax.tree.leaves(run.hypers[0]))
        self.folder.begin(
            tomli_w.dumps({"steps": run.total, **self.keeper.sections["settings"]}),
            experiment=OWN,
            title=title,
            summary=f"{type(run.method).__name__} on {learned} hyperparameters, {run.total} outer steps{members}",
            command=shlex.join(sys.orig_argv),
        )

    def close(self, result: Result) -> None:
        """Saves, tells, and gives the folder up."""
        try:
            failure = self._saved()
            self._tell(result, failure)
        finally:
            self.keeper.close()
            self.folder.release()
        if failure is not None:
            raise failure

    def _saved(self) -> Exception | None:
        """Saves where all stand; gives what went wrong.

        Of several processes one may be here without the others, so that there is nothing but what they have saved
        together: all that was finished, if they came to the end or to a signal together.
        """
        if not self.peers.alone:
            return self.keeper.failure
        try:
            self.keeper.save()
            self.keeper.wait()
        except WriteError as error:
            return error
        return None

    def _retried(self) -> str:
        """How often its members have gone back."""
        standings = () if self.keeper.latest is None else self.keeper.latest()
        back = [one for one in standings if one.retries]
        if not back:
            return ""
        count, least = sum(one.retries for one in back), min(one.scale for one in back)
        return f"it went back {count} times, and its outer steps are {least:.3g} of their size now"

    def _tell(self, result: Result, failure: Exception | None) -> None:
        """How it ended, first of all; then the pictures and the page."""
        if not self.peers.leads or not (self.folder.path / "run.json").exists():
            return  # it is told by another process, or could not be begun
        if failure is not None:
            self.folder.finish(FAILED, str(failure))
            return
        status = FAILED if result.failed else INTERRUPTED if result is Result.STOPPED else FINISHED
        self.folder.finish(status, ". ".join(filter(None, [_why(result), self._retried()])))
        if not self.hurried and self.keeper.latest is not None:
            add_course(self.folder, self.keeper.latest(), self.findings)
        write_report(self.folder)


def _why(result: Result) -> str:
    return result.value if result.failed else ""


def taken_over(
    folder: Path,
    run: Start,
    standings: tuple[Standing, ...],
    *,
    pace: Pace,
    allow: Sequence[str],
    peers: Peers,
) -> tuple[Keeper, tuple[Standing, ...] | None, tuple[str, ...]]:
    """What keeps a run in a folder, where all members stood there, and what there is to say of its snapshots.

    Args:
        folder: of the logs and snapshots; this process owns it.
        run: what is tuned.
        standings: of all members at the start.
        pace: how often a snapshot is made.
        allow: what may be different from what it was.
        peers: the processes over which its arrays lie.

    Raises:
        SnapshotError: the earlier run was another one, or none of its snapshots is whole.
        WriteError: the folder cannot be written to.
    """
    sections, row = _sections_of(run, standings), functools.partial(_row_text, run)
    if not peers.alone:
        sections["device"]["process"] = f"{peers.index} of {peers.count}"
    keeper = Keeper(folder, run, sections=sections, pace=pace, row=row, peers=peers)
    try:
        return keeper, *keeper.restored(standings, allow)
    except BaseException:
        keeper.close()
        raise


def _row_text(run: Start, report: Report) -> str:
    """A report as a line for people to read."""
    return json.dumps(row_of(report, with_member=len(run.hypers) > 1))


def _sections_of(run: Start, standings: tuple[Standing, ...]) -> Sections:
    """What has to be the same in a run that goes on."""
    hypers: list[Any] = [one.state.hyper for one in standings]
    domains: list[Any] = [one.state.space for one in standings]
    # Runs without it are what they were before there was any.
    choose = {} if run.choose is None else {"choose": run.choose}
    return fingerprint(
        problem=run.problem,
        method=run.method,
        optim=run.optim,
        hyper=hypers,
        domain=domains,
        **choose,
    )


def _check_holds_a_run(folder: RunFolder) -> None:
    names = {path.name for path in folder.path.iterdir() if not is_part(path)} - {OWNER, GUARD}
    if names and not names & {"run.json", REPORTS}:
        raise RunFolderError(
            f"the folder {folder.path} holds something, but no run: choose another, or empty it first"
        )
