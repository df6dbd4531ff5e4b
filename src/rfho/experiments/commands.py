"""The commands of ``rfho``: list, run and report.

They only translate between the command line and the functions of this package. Bad input is one
line on stderr and exit code 2; Ctrl-C is exit code 130.
"""

import difflib
import importlib.metadata
import logging
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.logging import RichHandler

from rfho.experiments.about import INTERRUPTED
from rfho.experiments.base import USER_ERRORS, Experiment, execute
from rfho.experiments.report import write_report
from rfho.experiments.run_folder import RunFolderError, create_run_folder, open_run_folder
from rfho.experiments.settings import assigned, changed, fields_of, read_toml
from rfho.experiments.table import Column, Table, make_table, to_rich

BAD_INPUT, BY_CTRL_C = 2, 130
"""Exit codes."""


class Invocation(NamedTuple):
    """What a command line was, and the experiments that it may name."""

    arguments: tuple[str, ...]
    experiments: tuple[Experiment[Any], ...]


class UnknownExperimentError(ValueError):
    """The command line names an experiment that does not exist."""


app = typer.Typer(
    name="rfho",
    help="Gradient-based hyperparameter optimisation: the experiments of the papers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def invoke(arguments: Sequence[str], experiments: tuple[Experiment[Any], ...]) -> int:
    """Carries out a command line and returns its exit code."""
    invocation = Invocation(tuple(arguments), experiments)
    try:
        code = app(list(arguments), prog_name="rfho", standalone_mode=False, obj=invocation)
    except KeyboardInterrupt:
        return BY_CTRL_C
    except (*USER_ERRORS, RunFolderError, UnknownExperimentError) as error:
        return _refused(str(error))
    except Exception as error:
        # Typer's own complaints about a command line have this method, whichever the version.
        if not hasattr(error, "format_message"):
            raise
        return _refused(f"{error.format_message()} (see rfho --help)")  # type: ignore[attr-defined]
    return code if isinstance(code, int) else 0


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    if version:
        Console().print(f"rfho {importlib.metadata.version('rfho')}", highlight=False)
        raise typer.Exit


@app.command("list")
def list_(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="An experiment, to see its settings.")] = None,
) -> None:
    """List the experiments, or the settings of one."""
    invocation: Invocation = context.obj
    experiments = invocation.experiments
    table = _experiments(experiments) if name is None else _settings(_named(name, experiments))
    Console().print(to_rich(table))


@app.command()
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The experiment; see rfho list.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a TOML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the run, new or empty.")] = None,
    seed: Annotated[str | None, typer.Option(help="Short for --set seed=…")] = None,
    data: Annotated[str | None, typer.Option(help="Short for --set data=…")] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="The paper's protocol, or a quick look.")
    ] = False,
) -> None:
    """Run an experiment and write its report."""
    invocation: Invocation = context.obj
    experiment = _named(name, invocation.experiments)
    settings = experiment.full if full else experiment.quick
    if config is not None:
        settings = changed(settings, read_toml(config))
    short = [f"{key}={text}" for key, text in (("seed", seed), ("data", data)) if text is not None]
    settings = assigned(settings, [*(assignments or ()), *short])
    console = Console()
    folder = create_run_folder(experiment.name, out)
    console.print(f"{experiment.title}: writing to {folder.path}", highlight=False)
    command = shlex.join(["rfho", *invocation.arguments])
    with _log_on(console):
        outcome = execute(experiment, settings, folder, command=command, console=console)
    console.print(f"{outcome.status}: {outcome.report}", highlight=False, soft_wrap=True)
    if outcome.status == INTERRUPTED:
        raise typer.Exit(BY_CTRL_C)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
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
            str(getattr(experiment.quick, field.key)),
            str(getattr(experiment.full, field.key)),
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


def _refused(message: str) -> int:
    """Says on one line of stderr what was wrong."""
    print(f"rfho: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT
