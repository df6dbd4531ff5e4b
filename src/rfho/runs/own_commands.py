"""The commands of ``rfho`` for a problem of one's own: tune, check, plan and new."""

from pathlib import Path
from typing import Annotated

import typer

from rfho.hyper_gradients import Device
from rfho.runs.own import check_case, new_case, tune_case
from rfho.runs.paper import plan_case

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
    retry: Annotated[
        int | None,
        typer.Option(
            metavar="TIMES", help="Go back at most so often from what is not finite.", min=1
        ),
    ] = None,
) -> None:
    """Tune a problem of your own."""
    raise typer.Exit(tune_case(target, assignments or (), steps=steps, run=run, retry=retry))


def check(
    target: Annotated[str, _TARGET],
    assignments: Annotated[list[str] | None, _START] = None,
) -> None:
    """Look for whatever can make the hypergradient of a problem of your own wrong."""
    raise typer.Exit(check_case(target, assignments or ()))


def plan(
    target: Annotated[str, _TARGET],
    assignments: Annotated[list[str] | None, _START] = None,
    mesh: Annotated[
        str | None,
        typer.Option(metavar="NAME=COUNT,…", help="Axes of a mesh of simulated devices: data=64."),
    ] = None,
    placement: Annotated[str, typer.Option(help="fsdp or data_parallel.")] = "fsdp",
    memory: Annotated[
        float | None, typer.Option(help="Bytes of a device, to see what fits.", min=1)
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="FLOPs per second that a device reaches.", min=1)
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="Bytes per second that it sends.", min=1)
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--check", help="Ask the compiler about each whole program too.")
    ] = False,
) -> None:
    """Say what a hypergradient needs of each of many devices, on paper."""
    device = Device(memory, flops, bandwidth)
    raise typer.Exit(
        plan_case(
            target,
            assignments or (),
            mesh=mesh,
            placement=placement,
            device=device,
            check=compiled,
        )
    )


def new(folder: Annotated[Path, typer.Argument(help="Where problem.py goes.")]) -> None:
    """Write a commented problem that runs, to begin with."""
    raise typer.Exit(new_case(folder))
