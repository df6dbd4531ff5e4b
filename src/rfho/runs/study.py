"""A study: on every seed each method is run, and a table says what they came to.

A record is what one method came to on one seed: a mapping from the headings of the table to numbers or
text. Records of the same method make one row, numbers as mean ± standard deviation.

Example:
    >>> study = Study(
    ...     methods={"half": "λ / 2", "same": "λ"},
    ...     cases=range(2),
    ...     run_one=lambda seed: [
    ...         {"method": "half", "loss": 1.0 + seed},
    ...         {"method": "same", "loss": 4.0},
    ...     ],
    ...     measures=[Measure("method"), Measure("loss", 2)],
    ... )
    >>> records = [record for seed in study.cases for record in study.run_one(seed)]
    >>> [shown(row[1], 2) for row in study.table("Losses", records).rows]
    ['1.50 ± 0.71', '4.00 ± 0.00']
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from rich.console import Console

from rfho.runs.experiment import until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Spread, Table, make_table, shown, spread, to_rich

C = TypeVar("C")

Record = Mapping[str, Any]
"""Numbers, arrays of numbers, text or None, by name."""


class Measure(NamedTuple):
    """A column of a table, and how it is read from the records of a row.

    Attributes:
        name: the heading, which is the records' name for it.
        decimals: as of `Column`.
        of: makes one cell of all numbers of a row.
    """

    name: str
    decimals: int | None = None
    of: Callable[[np.ndarray], Cell] = spread

    def cell(self, records: Iterable[Record]) -> Cell:
        """Of these records: None if none knows the number; text is the same in all of them."""
        known = [record[self.name] for record in records if record.get(self.name) is not None]
        if not known:
            return None
        if isinstance(known[0], str | Spread) or (len(known) == 1 and isinstance(known[0], int)):
            return known[0]
        return self.of(np.concatenate([np.atleast_1d(each) for each in known]))


class Study(NamedTuple, Generic[C]):
    """Methods, the seeds or other cases on which they are compared, and what is measured.

    Attributes:
        methods: their meanings by name, in the order of the table; may be empty.
        cases: seeds, mostly.
        run_one: on one case, a record for each method, each as soon as it is known.
        measures: the columns of the table.
    """

    methods: Mapping[str, str]
    cases: Iterable[C]
    run_one: Callable[[C], Iterable[Record]]
    measures: Sequence[Measure]

    def carry_out(self, folder: RunFolder, console: Console) -> list[Record]:
        """All cases, until Ctrl-C; what is known then is what the study is made of."""
        records: list[Record] = []
        with until_interrupted(folder, console):
            for case in self.cases:
                for record in self.run_one(case):
                    records.append({"case": case, **record})
                    console.print(f"{case}: {_line(record, self.measures)}", highlight=False)
        return records

    def table(self, title: str, records: Sequence[Record], note: str = "") -> Table:
        """A row for each method."""
        order = {method: place for place, method in enumerate(self.methods)}
        ordered = sorted(records, key=lambda record: order.get(record["method"], len(order)))
        named = [
            {**record, "method": f"{record['method']}: {meaning}" if meaning else record["method"]}
            for record in ordered
            for meaning in [self.methods.get(record["method"])]
        ]
        return tabulated(title, named, self.measures, by="method", note=note)


def tabulated(
    title: str,
    records: Iterable[Record],
    measures: Sequence[Measure],
    *,
    by: str | None = None,
    note: str = "",
) -> Table:
    """A table of records.

    Args:
        title: stands above it.
        records: what is shown.
        measures: the columns.
        by: records that have the same under this name make one row; by default each is a row.
        note: stands below it.
    """
    groups = [[record] for record in records] if by is None else grouped(records, by).values()
    rows = [[measure.cell(group) for measure in measures] for group in groups]
    columns = [Column(measure.name, measure.decimals) for measure in measures]
    return make_table(title, columns, rows, note=note)


def grouped(records: Iterable[Record], by: str) -> dict[Any, list[Record]]:
    """The records by what they have under a name, in the order in which that first comes.

    Example:
        >>> grouped([{"seed": 1, "loss": 2.0}, {"seed": 0}, {"seed": 1}], "seed")[1]
        [{'seed': 1, 'loss': 2.0}, {'seed': 1}]
    """
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(record[by], []).append(record)
    return groups


def traced(
    rows: Iterable[Record], name: str, *, over: str | None = None
) -> Float[np.ndarray, "runs steps"]:
    """A curve of a history, such as `pictures.curves` draws: the numbers of a name, step after step.

    Args:
        rows: of the history.
        name: of the numbers; None is NaN.
        over: what tells runs apart; a run that ended before others goes on as NaN.
    """
    runs = [list(rows)] if over is None else list(grouped(rows, over).values())
    curves = np.full((len(runs), max(map(len, runs), default=0)), np.nan)
    for curve, run in zip(curves, runs, strict=True):
        curve[: len(run)] = [row[name] for row in run]
    return curves


def gained(records: Sequence[Record], name: str, *, over: str, as_name: str) -> list[Record]:
    """The records with one number more: by how much ``over`` is exceeded in the same case.

    Args:
        records: with a ``method`` and a ``case``.
        name: of what is compared.
        over: the method that is compared with, whose own gain is None.
        as_name: of the gain.
    """
    base = {record["case"]: record[name] for record in records if record["method"] == over}
    return [
        {**record, as_name: record[name] - base[record["case"]]}
        if record["method"] != over and record["case"] in base
        else record
        for record in records
    ]


def median(values: np.ndarray) -> Cell:
    """The median, as the ``of`` of a `Measure`."""
    return float(np.median(values))


def add_tables(folder: RunFolder, console: Console, tables: Mapping[str, Table]) -> None:
    """Adds tables by name, and shows them."""
    for name, table in tables.items():
        folder.add_table(name, table)
        console.print(to_rich(table))


def _line(record: Record, measures: Sequence[Measure]) -> str:
    """What a record says, for the console."""
    cells = {measure.name: (measure.cell([record]), measure.decimals) for measure in measures}
    known = [f"{name} {shown(*cell)}" for name, cell in cells.items() if cell[0] is not None]
    return ", ".join(known)
