"""The commands of ``rfho``: list, run, resume, report and compare; `own_commands` has those for one's own problems.

They only translate between the command line and the functions of this package. Bad input is one
line on stderr and exit code 2; a run whose numbers fail is one line and exit code 1; Ctrl-C is exit
code 130, SIGTERM 143.
"""

import builtins
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

from rfho.errors import HyperGradientError, SnapshotError, WriteError
from rfho.files import write_file
from rfho.outer import ended_by_sigterm
from rfho.runs.about import FINISHED, INTERRUPTED
from rfho.runs.case import CaseError, did_you_mean
from rfho.runs.comparison import compared
from rfho.runs.experiment import USER_ERRORS, Experiment, execute
from rfho.runs.listing import found, listed
from rfho.runs.outer_loops import taken_up
from rfho.runs.own_commands import check, new, plan, tune
from rfho.runs.owner import RunFolderError
from rfho.runs.report import write_report
from rfho.runs.run import OWN
from rfho.runs.run_folder import RunFolder, create_run_folder, open_run_folder
from rfho.runs.settings import assigned, changed, fields_of, read_toml
from rfho.runs.table import Table, make_table, to_rich

FAILED_RUN, BAD_INPUT, BY_CTRL_C = 1, 2, 130
"""Exit codes."""


def _version(wanted: bool) -> bool:
    if not wanted:
        return False
    _show(f"rfho {importlib.metadata.version('rfho')}")
    raise typer.Exit


class UnknownExperimentError(ValueError):
    """The command line names an experiment that does not exist."""


def invoke(
    arguments: Sequence[str],
    experiments: tuple[Experiment[Any], ...],
    groups: Sequence[typer.Typer] = (),
) -> int:
    """Carries out a command line and returns its exit code; ``groups`` have further commands."""
    app = CommandLine(tuple(arguments), experiments).app()
    for group in groups:
        app.add_typer(group)
    try:
        with ended_by_sigterm():
            code = app(list(arguments) or ["--help"], prog_name="rfho", standalone_mode=False)
    except KeyboardInterrupt:
        return BY_CTRL_C
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else BAD_INPUT
    except (
        *USER_ERRORS,
        CaseError,
        RunFolderError,
        SnapshotError,
        UnknownExperimentError,
    ) as error:
        return _said(str(error), BAD_INPUT)
    except (HyperGradientError, WriteError) as error:
        return _said(str(error), FAILED_RUN)
    except Exception as error:
        # Typer's own complaints about a command line have this method, whichever the version.
        if not hasattr(error, "format_message"):
            raise
        message: str = error.format_message()  # type: ignore[attr-defined]
        return _said(f"{message} (see rfho --help)", BAD_INPUT)
    _show_settings_beside_help(arguments, experiments)
    return code if isinstance(code, int) else 0


def _show_settings_beside_help(
    arguments: Sequence[str], experiments: tuple[Experiment[Any], ...]
) -> None:
    """Of the experiment whose help was asked for: ``rfho run NAME --help``."""
    if tuple(arguments[:1]) == ("run",) and "--help" in arguments:
        for experiment in experiments:
            if experiment.name in arguments:
                Console().print(to_rich(_settings(experiment)))


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
        for command in (self.list, self.run, self.resume, self.report, self.compare):
            app.command()(command)
        for command in (tune, check, plan, new):
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
        """Gradient-based hyperparameter optimisation: your own problems, and the experiments of the papers."""

    def list(
        self,
        names: Annotated[
            builtins.list[str] | None,
            typer.Argument(
                metavar="[NAME | DIR…]",
                help="An experiment, to see its settings; or folders of runs, to see how they stand.",
            ),
        ] = None,
    ) -> None:
        """List the experiments, the settings of one, or runs."""
        if not names:
            table = _experiments(self.experiments)
        elif all(Path(name).is_dir() for name in names) and not self._knows(names[0]):
            table = listed(found([Path(name) for name in names]))
        else:
            table = _settings(_named(names[0], self.experiments))
        Console().print(to_rich(table))

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
        self._carry_out(experiment, settings, create_run_folder(experiment.name, out))

    def resume(
        self,
        folder: Annotated[Path, typer.Argument(help="The folder of a run that was interrupted.")],
        allow: Annotated[
            builtins.list[str] | None,
            typer.Option(
                metavar="NAME", help="What may be different now, as the refusal names it: jax, say."
            ),
        ] = None,
    ) -> None:
        """Go on with a run: outer loops from their last snapshots, and the rest anew."""
        about = open_run_folder(folder).about()
        if about.status == FINISHED:
            _show(f"{folder} is finished")
            return
        if about.experiment == OWN:
            raise RunFolderError(
                f"the run in {folder} is of a program of its own: start that again, and it goes on ({about.command})"
            )
        experiment = _named(about.experiment, self.experiments)
        settings = changed(experiment.quick, read_toml(folder / "settings.toml"))
        with taken_up(folder, allow or ()) as taken:
            self._carry_out(experiment, settings, taken)

    def report(self, folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
        """Make the report of a run again, from its folder alone."""
        _show(str(write_report(open_run_folder(folder))))

    def compare(
        self,
        folders: Annotated[builtins.list[Path], typer.Argument(help="Folders of runs.")],
        out: Annotated[Path, typer.Option(help="The page.")] = Path("compare.html"),
    ) -> None:
        """Draw the histories of runs over each other, on one page."""
        write_file(out, compared(found(folders)).encode())
        _show(str(out))

    def _carry_out(self, experiment: Experiment[Any], settings: object, folder: RunFolder) -> None:
        console = Console()
        _show(f"{experiment.title}: writing to {folder.path}")
        command = shlex.join(["rfho", *self.arguments])
        with _log_on(console):
            try:
                outcome = execute(experiment, settings, folder, command=command, console=console)
            except HyperGradientError as error:
                page = folder.path / "report.html"
                raise typer.Exit(
                    _said(f"FAILED: {error}; the report is {page}", FAILED_RUN)
                ) from error
        _show(f"{outcome.status}: {outcome.report}")
        if outcome.status == INTERRUPTED:
            raise typer.Exit(BY_CTRL_C)

    def _knows(self, name: str) -> bool:
        return any(experiment.name == name for experiment in self.experiments)


def _named(name: str, experiments: Sequence[Experiment[Any]]) -> Experiment[Any]:
    by_name = {experiment.name: experiment for experiment in experiments}
    if name in by_name:
        return by_name[name]
    hint, known = did_you_mean(name, tuple(by_name)), ", ".join(by_name) or "none"
    raise UnknownExperimentError(
        f"unknown experiment {name!r}: {hint}the experiments are {known}; see rfho list"
    )


def _experiments(experiments: Sequence[Experiment[Any]]) -> Table:
    rows = [(each.name, each.title, each.summary) for each in experiments]
    columns = ["name", "title", "what it does"]
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
    columns = ["setting", "type", "--quick", "--full", "meaning"]
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


def _show(text: str) -> None:
    """Prints a line as it is, brackets in the name of a folder too."""
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _said(message: str, code: int) -> int:
    """Says on one line of stderr what was wrong, and passes the exit code on."""
    print(f"rfho: {' '.join(message.split())}", file=sys.stderr)
    return code
