"""The commands ``rfho data list`` and ``rfho data fetch``."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rfho.datasets.catalogue import DATA_SETS, DataSet, data_set

data = typer.Typer(name="data", help="List data sets, and bring them here ahead of a run.")


@data.command("list")
def list_data() -> None:
    """List the data sets, and where each lies."""
    table = Table("name", "what it is")
    table.add_column("where it is", overflow="fold")
    for each in DATA_SETS:
        table.add_row(each.name, each.about, _place(each))
    console = Console()
    console.print(table)
    console.print("rfho data fetch NAME brings one into the user's cache", highlight=False)


@data.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Data sets; see rfho data list.")],
) -> None:
    """Bring data sets here, and read them once to see that they are whole."""
    console = Console()
    for each in [data_set(name) for name in names]:
        each.load()
        console.print(f"{each.name}: {_place(each)}", highlight=False, soft_wrap=True)


def _place(each: DataSet) -> str:
    found = each.here() if each.files else None
    if found is not None:
        return str(found)
    return each.source if not each.files else f"not here ({each.source})"
