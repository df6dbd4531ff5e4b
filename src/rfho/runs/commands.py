"""The commands of ``rfho``: list, run and report.

They only translate between the command line and the functions of this package. Bad input is one
line on stderr and exit code 2; a run whose numbers fail is one line and exit code 1; Ctrl-C is exit
code 130.
"""

import builtins
import difflib
import importlib.metadata
import json
import logging
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from rfho.errors import HyperGradientError, WriteError
from rfho.runs.about import INTERRUPTED
from rfho.runs.experiment import USER_ERRORS, Experiment, execute
from rfho.runs.owner import RunFolderError
from rfho.runs.report import write_report
from rfho.runs.run_folder import create_run_folder, open_run_folder
from rfho.runs.settings import assigned, changed, fields_of, read_toml
from rfho.runs.table import Column, Table, make_table, to_rich

FAILED_RUN, BAD_INPUT, BY_CTRL_C = 1, 2, 130
"""Exit codes."""


def _version(wanted: bool) -> bool:
    if not wanted:
        return False
    Console().print(f"rfho {importlib.metadata.version('rfho')}", highlight=False)
    raise typer.Exit


class UnknownExperimentError(ValueError):
    """The command line names an experiment that does not exist."""


def invoke(arguments: Sequence[str], experiments: tuple[Experiment[Any], ...]) -> int:
    """Carries out a command line and returns its exit code."""
    app = CommandLine(tuple(arguments), experiments).app()
    try:
        code = app(list(arguments) or ["--help"], prog_name="rfho", standalone_mode=False)
    except KeyboardInterrupt:
        return BY_CTRL_C
    except (*USER_ERRORS, RunFolderError, UnknownExperimentError) as error:
        return _said(str(error), BAD_INPUT)
    except (HyperGradientError, WriteError) as error:
        return _said(str(error), FAILED_RUN)
    except Exception as error:
        # Typer's own complaints about a command line have this method, whichever the version.
        if not hasattr(error, "format_message"):
            raise
        message: str = error.format_message()  # type: ignore[attr-defined]
        return _said(f"{message} (see rfho --help)", BAD_INPUT)
    return code if isinstance(code, int) else 0


@dataclass(frozen=True)
class CommandLine:
    """A command line, and the experiments that it may name."""

    arguments: tuple[str, ...]
    experiments: tuple[Experiment[Any], ...]

    def app(self) -> typer.Typer:
        """What reads it."""
        app = typer.Typer(
            name="rfho",
            add_completion=False,
            pretty_exceptions_enable=False,
        )
        app.callback()(self.about)
        for command in (self.list, self.run, self.report):
            app.command()(command)
        return app

    def about(
        self,
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_version, is_eager=True, help="Show the version and leave."
            ),
        ] = False,
    ) -> None:
        """Gradient-based hyperparameter optimisation: the experiments of the papers."""

    def list(
        self,
        name: Annotated[
            str | None, typer.Argument(help="An experiment, to see its settings.")
        ] = None,
    ) -> None:
        """List the experiments, or the settings of one."""
        if name is None:
            Console().print(to_rich(_experiments(self.experiments)))
        else:
            Console().print(to_rich(_settings(_named(name, self.experiments))))

    def run(
        self,
        name: Annotated[str, typer.Argument(help="The experiment; see rfho list.")],
        assignments: Annotated[
            builtins.list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
        ] = None,
        config: Annotated[Path | None, typer.Option(help="Settings from a TOML file.")] = None,
        out: Annotated[Path | None, typer.Option(help="The run's folder, new or empty.")] = None,
        seed: Annotated[str | None, typer.Option(help="Short for --set seed=…")] = None,
        data: Annotated[str | None, typer.Option(help="Short for --set data=…")] = None,
        full: Annotated[
            bool, typer.Option("--full/--quick", help="The paper's protocol, or a quick look.")
        ] = False,
    ) -> None:
        """Run an experiment and write its report."""
        experiment = _named(name, self.experiments)
        settings = experiment.full if full else experiment.quick
        if config is not None:
            settings = changed(settings, read_toml(config))
        short = {"seed": seed, "data": data}
        named = [f"{key}={text}" for key, text in short.items() if text is not None]
        settings = assigned(settings, [*(assignments or ()), *named])
        console = Console()
        folder = create_run_folder(experiment.name, out)
        console.print(f"{experiment.title}: writing to {folder.path}", highlight=False)
        command = shlex.join(["rfho", *self.arguments])
        with _log_on(console):
            outcome = execute(experiment, settings, folder, command=command, console=console)
        console.print(f"{outcome.status}: {outcome.report}", highlight=False, soft_wrap=True)
        if outcome.status == INTERRUPTED:
            raise typer.Exit(BY_CTRL_C)

    def report(self, folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
        """Make the report of a run again, from its folder alone."""
        path = write_report(open_run_folder(folder))
        Console().print(str(path), highlight=False, soft_wrap=True)


def _named(name: str, experiments: Sequence[Experiment[Any]]) -> Experiment[Any]:
    by_name = {experiment.name: experiment for experiment in experiments}
    if name in by_name:
        return by_name[name]
    nearest = difflib.get_close_matches(name, by_name, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    known = ", ".join(by_name) or "none"
    raise UnknownExperimentError(
        f"unknown experiment {name!r}: {hint}the experiments are {known}; see rfho list"
    )


def _experiments(experiments: Sequence[Experiment[Any]]) -> Table:
    rows = [(each.name, each.title, each.summary) for each in experiments]
    columns = [Column("name"), Column("title"), Column("what it does")]
    return make_table("Experiments", columns, rows, note="rfho list NAME shows the settings of one")


def _settings(experiment: Experiment[Any]) -> Table:
    rows = [
        (
            field.key,
            field.type_name,
            json.dumps(getattr(experiment.quick, field.key)),
            json.dumps(getattr(experiment.full, field.key)),
            field.meaning,
        )
        for field in fields_of(type(experiment.quick))
    ]
    columns = [Column(name) for name in ("setting", "type", "--quick", "--full", "meaning")]
    return make_table(experiment.title, columns, rows, note=experiment.summary)


@contextmanager
def _log_on(console: Console) -> Generator[None]:
    """Shows what the library logs (downloads, say) while an experiment runs."""
    logger = logging.getLogger("rfho")
    handler, level = RichHandler(console=console, show_path=False, show_time=False), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _said(message: str, code: int) -> int:
    """Says on one line of stderr what was wrong, and passes the exit code on."""
    print(f"rfho: {' '.join(message.split())}", file=sys.stderr)
    return code
