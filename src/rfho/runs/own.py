"""The commands for a problem of one's own: tune, check and new.

The last line of each says how it ended, and so does its exit code.
"""

import importlib.resources
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import rfho
from rfho.checks import Finding
from rfho.errors import Result, WriteError
from rfho.files import make_folder, write_file
from rfho.outer import Report, Start, shown
from rfho.runs.case import CaseError, read_case, saying_where, started
from rfho.runs.run import Run

_OK, _FAILED, _BY_CTRL_C = 0, 1, 130
_LINES = 20


def tune_case(
    target: str,
    assignments: Sequence[str],
    *,
    steps: int | None,
    run: Path | None,
    retry: int | None,
) -> int:
    """Tunes the problem of a file, shows how it goes, and prints its solution.

    Args:
        target: ``FILE.py:problem``, see `rfho.runs.case`.
        assignments: other starts, ``NAME=NUMBER``.
        steps: other than the file says.
        run: the folder in which the run is kept.
        retry: how often it goes back at most after a failure, other than the file says.

    Returns:
        The exit code: 0, 1 if the run failed, 130 after Ctrl-C.

    Raises:
        CaseError: the file cannot be tuned.
    """
    case = read_case(target)
    with warnings.catch_warnings(), saying_where(target):
        warnings.simplefilter("ignore", rfho.HyperGradientWarning)  # said by the listener
        solution = rfho.tune(
            case.problem,
            started(case.hyper, assignments),
            method=case.method,
            optim=case.optim,
            domain=case.domain,
            steps=case.steps if steps is None else steps,
            tolerance=case.tolerance,
            listeners=_listeners(Console()),
            run=None if run is None else Run(run),
            retry=case.retry if retry is None else rfho.Retry(retry),
            throw=False,
        )
    failed = solution.error is not None or solution.result.failed
    lines = [str(solution)]
    if run is not None:
        lines.append(f"the report is {run / 'report.html'}; the same command goes on from there")
    if failed:
        reason = str(solution.error or solution.result.value)
        lines.append(f"FAILED after {len(solution.history)} outer steps: {_line(reason)}")
    _say(lines)
    if failed:
        return _FAILED
    return _BY_CTRL_C if solution.result is Result.STOPPED else _OK


def check_case(target: str, assignments: Sequence[str]) -> int:
    """Looks for whatever can make the hypergradient of a file's problem wrong, and says it in sentences.

    Args:
        target: as in `tune_case`.
        assignments: as in `tune_case`.

    Returns:
        The exit code: 0, or 1 if something was found that makes the hypergradient doubtful.

    Raises:
        CaseError: the file cannot be tuned.
    """
    case = read_case(target)
    hyper = started(case.hyper, assignments)
    with warnings.catch_warnings(), saying_where(target):
        warnings.simplefilter("ignore", rfho.HyperGradientWarning)
        found = rfho.diagnose(case.problem, hyper, case.method, domain=case.domain)
    _say([str(found), "healthy" if found.healthy else "DOUBTFUL: see above"])
    return _OK if found.healthy else _FAILED


def new_case(folder: Path) -> int:
    """Writes a commented problem that runs into a folder.

    Args:
        folder: new, or without a ``problem.py``.

    Returns:
        The exit code 0.

    Raises:
        CaseError: there is such a file already.
        WriteError: the folder cannot be written to.
    """
    path = folder / "problem.py"
    if path.exists():
        raise CaseError(f"{path} is there already: choose another folder")
    text = importlib.resources.files("rfho.runs").joinpath("templates", "problem.txt").read_bytes()
    try:
        make_folder(folder)
        write_file(path, text)
    except OSError as error:
        raise WriteError(*error.args) from error
    _say(
        [
            f"{path} is a problem that runs: look at it, put your model and data in, then",
            f"  rfho check {path}:problem",
            f"  rfho tune {path}:problem --run {folder / 'run'}",
        ]
    )
    return _OK


class _Lines(rfho.Listener):
    """At most twenty lines and the findings, for a screen that is no terminal."""

    def __init__(self, console: Console, *, steps: bool) -> None:
        self._console, self._steps, self._total = console, steps, 1

    def start(self, run: Start) -> None:
        self._total = run.total
        if self._steps:
            self._write(f"compiling, then {run.total} outer steps of {run.problem.horizon} steps")

    def step(self, report: Report) -> None:
        if self._steps and (report.step == 1 or report.step % -(-self._total // _LINES) == 0):
            value, hyper = shown(report.value), shown(report.hyper)
            self._write(f"step {report.step} of {self._total}: objective {value}; {hyper}")

    def finding(self, finding: Finding) -> None:
        self._write(str(finding))

    def _write(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _listeners(console: Console) -> list[rfho.Listener]:
    bar: list[rfho.Listener] = [rfho.RichProgress()] if console.is_terminal else []
    return [*bar, _Lines(console, steps=not console.is_terminal)]


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _line(text: str) -> str:
    return " ".join(text.split())
