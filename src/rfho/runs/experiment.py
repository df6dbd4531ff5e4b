"""What an experiment is, and how one is carried out.

An experiment is a value: its name, its settings for a quick look and for the full protocol, and a
function that runs it and puts what it finds into the folder of the run. Adding one is a package with
such a value, and its name in the tuple of `rfho.experiments`.

Ctrl-C and SIGTERM: an experiment does its outer steps within `until_interrupted`. The first interruption ends
that block and nothing more, so pictures and tables are still made of what there is; the next one
ends the experiment. The report is written in either case; after SIGTERM twice, as nobody knows how
long there is.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rich.console import Console

from rfho.errors import DataFormatError, DataNotFoundError, WriteError
from rfho.outer import TERMINATED
from rfho.runs.about import FAILED, FINISHED, INTERRUPTED
from rfho.runs.report import write_report
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError

S = TypeVar("S")

_BY_SIGTERM = "by SIGTERM"

USER_ERRORS = (SettingsError, DataNotFoundError, DataFormatError)
"""What a user mends, not a programmer: an experiment may raise these at its start."""


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """An experiment.

    Attributes:
        name: as one writes it on the command line, such as ``data-cleaning``.
        title: of the report.
        summary: what it does, in a sentence or two.
        quick: settings, a frozen dataclass (see `rfho.runs.settings`), for a look that
            takes a minute and needs no files.
        full: settings of the full protocol.
        run: carries it out with some settings; shows progress on the console, records each outer
            step and adds pictures and tables to the folder.
    """

    name: str
    title: str
    summary: str
    quick: S
    full: S
    run: Callable[[S, RunFolder, Console], None]


class Outcome(NamedTuple):
    """How a run ended ("finished" or "interrupted"), and where its report is."""

    status: str
    report: Path


@contextmanager
def until_interrupted(folder: RunFolder, console: Console) -> Generator[None]:
    """Around the outer steps of an experiment: Ctrl-C or SIGTERM ends the block, and the experiment goes on.

    After SIGTERM the report is first made of what has been added so far.

    `rfho.tune` does not let the interruption through, but returns with `Result.STOPPED`: raise
    KeyboardInterrupt then, if more steps would follow.

    Example:
        An experiment's ``run`` looks like this::

            reports = []
            with until_interrupted(folder, console):
                for report in rfho.iterate(problem, hyper, ...):
                    folder.record({"step": report.step, "value": report.value})
                    reports.append(report)
            folder.add_picture("value", curves(...), "The objective at each outer step.")
    """
    try:
        yield
    except KeyboardInterrupt:
        folder.finish(INTERRUPTED)
        console.print("Interrupted: making the report of what there is. Ctrl-C again to leave.")
    except SystemExit as left:
        if left.code != TERMINATED:
            raise
        folder.finish(INTERRUPTED, _BY_SIGTERM)
        write_report(folder)
        console.print("SIGTERM: making the report of what there is.")


def execute(
    experiment: Experiment[Any],
    settings: object,
    folder: RunFolder,
    *,
    command: str,
    console: Console,
) -> Outcome:
    """Runs an experiment in a fresh folder and writes the report, however the run ends.

    Args:
        experiment: what to run.
        settings: of the type of the experiment's own.
        folder: a fresh one, of `create_run_folder`.
        command: the command line, for the report.
        console: where progress is shown.

    Raises:
        SettingsError, DataNotFoundError, DataFormatError: the experiment could not start; the
            folder is removed if nothing is in it yet.
        WriteError: the disk is full, say.
        SystemExit: with the code 143, after SIGTERM; the report is written.
        Exception: whatever else the experiment raises; the report says that it failed.
    """
    described = {"title": experiment.title, "summary": experiment.summary, "command": command}
    try:
        with _noted(folder):
            folder.begin(settings, experiment=experiment.name, **described)
            experiment.run(settings, folder, console)
        return Outcome(folder.about().status, write_report(folder))
    finally:
        folder.release()


@contextmanager
def _noted(folder: RunFolder) -> Generator[None]:
    """Around an experiment: notes how it ended."""
    try:
        yield
    except KeyboardInterrupt:
        folder.finish(INTERRUPTED)
    except SystemExit:  # by SIGTERM
        folder.finish(INTERRUPTED)
        write_report(folder)
        raise
    except Exception as error:
        _note_failure(folder, error)
        raise
    else:
        _note_end(folder)


def _note_end(folder: RunFolder) -> None:
    """Says in the folder how the run ended, and leaves as SIGTERM wanted, now that all is made."""
    about = folder.about()
    interrupted = about.status == INTERRUPTED
    folder.finish(INTERRUPTED if interrupted else FINISHED, about.reason if interrupted else "")
    if interrupted and about.reason == _BY_SIGTERM:
        write_report(folder)
        raise SystemExit(TERMINATED)


def _note_failure(folder: RunFolder, error: Exception) -> None:
    """Says in the folder that the run failed, as far as it can still be written to."""
    with suppress(WriteError, DataFormatError):
        folder.finish(FAILED, reason=f"{type(error).__name__}: {error}")
    if isinstance(error, USER_ERRORS) and folder.discard():
        return
    with suppress(WriteError, DataFormatError):
        write_report(folder)
