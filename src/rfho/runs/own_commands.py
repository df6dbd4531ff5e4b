"""The commands of ``rfho`` for a problem of one's own: tune, check and new."""

from pathlib import Path
from typing import Annotated

import typer

from rfho.runs.own import check_case, new_case, tune_case

_TARGET = typer.Argument(
    metavar="FILE.py:problem", help="A file, and the name of the rfho.Problem in it."
)
_START = typer.Option(
    "--set", metavar="NAME=NUMBER", help="Begin elsewhere with a hyperparameter; may be repeated."
)


def tune(
    target: Annotated[str, _TARGET],
    assignments: Annotated[list[str] | None, _START] = None,
    steps: Annotated[int | None, typer.Option(help="Outer steps.", min=1)] = None,
    run: Annotated[
        Path | None, typer.Option(help="A folder for the run; one that ended early goes on.")
    ] = None,
) -> None:
    """Tune a problem of your own."""
    raise typer.Exit(tune_case(target, assignments or (), steps=steps, run=run))


def check(
    target: Annotated[str, _TARGET],
    assignments: Annotated[list[str] | None, _START] = None,
) -> None:
    """Look for whatever can make the hypergradient of a problem of your own wrong."""
    raise typer.Exit(check_case(target, assignments or ()))


def new(folder: Annotated[Path, typer.Argument(help="Where problem.py goes.")]) -> None:
    """Write a commented problem that runs, to begin with."""
    raise typer.Exit(new_case(folder))
