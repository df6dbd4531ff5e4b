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
    ...     columns={"method": None, "loss": 2},
    ... )
    >>> records = [record for seed in study.cases for record in study.run_one(seed)]
    >>> [(name, shown(loss, 2)) for name, loss in study.table("Losses", records).rows]
    [('half: λ / 2', '1.50 ± 0.71'), ('same: λ', '4.00 ± 0.00')]
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float
from rich.console import Console

from rfho.runs.about import INTERRUPTED
from rfho.runs.experiment import until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Spread, Table, make_table, shown, spread, to_rich

C = TypeVar("C")

Record = Mapping[str, Any]
"""Numbers, arrays of numbers, text or None, by name."""

Columns = Mapping[str, int | None]
"""The headings of a table, which are the records' names for what stands below; and decimals."""

Reductions = Mapping[str, Callable[[np.ndarray], Cell]]
"""What makes one cell of all numbers of a row, where it is not mean and deviation."""


@dataclass(frozen=True)
class Study(Generic[C]):
    """Methods, the seeds or other cases on which they are compared, and what is shown of them.

    Attributes:
        methods: their meanings by name, in the order of the table; may be empty.
        cases: seeds, mostly.
        run_one: on one case, a record for each method, each as soon as it is known.
        columns: of the table.
        of: as of `tabulated`.
        by: what the records call the method.
    """

    methods: Mapping[str, str]
    cases: Iterable[C]
    run_one: Callable[[C], Iterable[Record]]
    columns: Columns
    of: Reductions = field(default_factory=dict)
    by: str = "method"

    def carry_out(
        self,
        folder: RunFolder,
        console: Console,
        *,
        after_each: Callable[[list[Record]], object] = len,
    ) -> list[Record]:
        """All cases, until Ctrl-C or SIGTERM; what is known then is what the study is made of.

        Args:
            folder: of the run.
            console: where each record is shown.
            after_each: called with all records so far whenever a case is done, or cut short with some.
        """
        records: list[Record] = []
        told = 0
        interrupted = folder.about().status == INTERRUPTED
        with until_interrupted(folder, console):
            for case in self.cases:
                for record in self.run_one(case):
                    records.append({"case": case, **record})
                    said = tabulated("", [record], self.columns).rows[0]
                    cells = zip(self.columns.items(), said, strict=True)
                    known = [
                        f"{name} {shown(cell, k)}" for (name, k), cell in cells if cell is not None
                    ]
                    console.print(f"{case}: {', '.join(known)}", highlight=False)
                after_each(records)
                told = len(records)
                if not interrupted and folder.about().status == INTERRUPTED:
                    break
        if told < len(records):
            after_each(records)
        return records

    def table(self, title: str, records: Iterable[Record], note: str = "") -> Table:
        """A row for each method."""
        order = {method: place for place, method in enumerate(self.methods)}
        meant = {name: f"{name}: {meaning}" for name, meaning in self.methods.items() if meaning}
        named = [
            {**record, self.by: meant.get(record[self.by], record[self.by])}
            for record in sorted(records, key=lambda record: order.get(record[self.by], 0))
        ]
        return tabulated(title, named, self.columns, by=self.by, of=self.of, note=note)


def tabulated(
    title: str,
    records: Iterable[Record],
    columns: Columns,
    *,
    by: str | None = None,
    of: Reductions | None = None,
    note: str = "",
) -> Table:
    """A table of records; a cell shows what they know, or a dash.

    Args:
        title: stands above it.
        records: what is shown.
        columns: headings and decimals.
        by: records that have the same under this name make one row; by default each is a row.
        of: how numbers of a row become a cell, by heading; by default `spread`.
        note: stands below it.
    """
    groups = [[record] for record in records] if by is None else grouped(records, by).values()
    rows = [
        [_cell(group, name, (of or {}).get(name, spread)) for name in columns] for group in groups
    ]
    return make_table(title, [Column(*column) for column in columns.items()], rows, note=note)


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
    """The records with one number more: by how much they exceed ``over`` in the same case.

    Args:
        records: of `Study.carry_out`.
        name: of what is compared.
        over: the method that is compared with; itself it has no gain.
        as_name: of the gain.
    """
    base = {record["case"]: record[name] for record in records if record["method"] == over}
    return [
        {**record, as_name: record[name] - base[record["case"]]}
        if record["method"] != over and record["case"] in base
        else record
        for record in records
    ]


def median(values: np.ndarray) -> float:
    """In a table in place of mean and deviation."""
    return float(np.median(values))


def add_tables(folder: RunFolder, console: Console, tables: Mapping[str, Table]) -> None:
    """Adds tables by name, and shows them."""
    for name, table in tables.items():
        folder.add_table(name, table)
        console.print(to_rich(table))


def _cell(records: Iterable[Record], name: str, of: Callable[[np.ndarray], Cell]) -> Cell:
    """None if no record knows the number; text is the same in all of them."""
    known = [record[name] for record in records if record.get(name) is not None]
    if not known:
        return None
    if isinstance(known[0], str | Spread) or (len(known) == 1 and isinstance(known[0], int)):
        return known[0]
    return of(np.concatenate([np.atleast_1d(each) for each in known]))
