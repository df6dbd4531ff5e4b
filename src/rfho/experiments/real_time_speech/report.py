"""What a run of real-time tuning on speech shows: how each method fared, as table and pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfho.runs.pictures import figure, legend_above, style
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import Record, grouped
from rfho.runs.table import Column, Table, make_table

VANILLA, RS, RTHO, RTHO_NT = "vanilla", "RS", "RTHO", "RTHO-NT"
METHODS = {
    VANILLA: "η, μ kept, ρ = 0",
    RS: "η, μ, ρ drawn at random, the time of RTHO",
    RTHO: "η, μ, ρ learned",
    RTHO_NT: "likewise, from zero",
}

COLUMNS = {
    "method": None,
    "test frames %": 2,
    "more than RS": 2,
    "validation frames %": 2,
    "processor minutes": 2,
    "training runs": 1,
}


def add_pictures(folder: RunFolder, records: Sequence[Record]) -> None:
    """Of all methods; a record has the ``looks`` of a run."""
    folder.add_picture("hyper", draw_hyper(records), _HYPER)
    folder.add_picture("accuracy", draw_accuracies(records), _ACCURACY)


def paired(records: Sequence[Record]) -> Table:
    """By how many points each method is ahead of random search on the same seed, with an interval.

    Seeds differ in who validates and in the first network, which moves all methods alike: differences on one seed
    tell more than the deviations of each. The interval holds their mean with 95 % where they are normal (Student's
    t); the sign test asks of a fair coin how often it would be as one-sided (two-sided p), whatever they are.
    """
    rows = []
    for what in ("test frames %", "validation frames %"):
        found = {
            name: {each["case"]: each[what] for each in own}
            for name, own in grouped(records, "method").items()
        }
        for name in METHODS:
            cases = found.get(RS, {}).keys() & found.get(name, {}).keys()
            if name != RS and cases:
                more = np.array([found[name][case] - found[RS][case] for case in cases])
                rows.append([name, what, *_interval(more), *_signs(more)])
    columns = [Column("method"), Column("of"), *(Column(name, 2) for name in _PAIRED)]
    return make_table("More than RS on the same seed, in points", columns, rows)


def _interval(more: np.ndarray) -> tuple[float, float | None, float | None]:
    """The mean of differences and the ends of its 95 % interval; of one difference there is none."""
    from scipy.stats import t

    mean, count = float(more.mean()), len(more)
    if count < 2:
        return mean, None, None
    half = float(t.ppf(0.975, count - 1) * more.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def _signs(more: np.ndarray) -> tuple[str, float]:
    """How many are above zero, and p of the sign test; ties count on neither side."""
    from scipy.stats import binomtest

    above, apart = int((more > 0).sum()), int((more != 0).sum())
    p = float(binomtest(above, apart).pvalue) if apart else 1.0
    return f"{above} of {len(more)}", p


def draw_hyper(records: Sequence[Record]) -> Figure:
    """η, μ and ρ by inner step, one line for each seed."""
    drawn, axes = figure(1, 3, width=9.6, height=3.6)
    for axis, (key, symbol) in zip(axes[0], _SYMBOLS.items(), strict=True):
        for looks, look in _lines(records, (RTHO, RTHO_NT)):
            axis.plot([each["step"] for each in looks], [each[key] for each in looks], **look)
        axis.set(xlabel="inner step t", ylabel=symbol)
        axis.set_ylim(bottom=0)
    legend_above(drawn, axes[0, 0], 2)
    return drawn


def draw_accuracies(records: Sequence[Record]) -> Figure:
    """The best validation accuracy so far by processor time, one line for each seed."""
    drawn, axes = figure()
    axis = axes[0, 0]
    for looks, look in _lines(records, tuple(METHODS)):
        best = np.maximum.accumulate([each["accuracy"] for each in looks])
        axis.plot([each["seconds"] / 60 for each in looks], best, **look)
    highest = max(record["validation frames %"] for record in records)
    axis.set_ylim(highest - 12, highest + 1)
    axis.set(xlabel="processor minutes", ylabel="best validation accuracy so far (%)")
    axis.legend(frameon=False)
    return drawn


def _lines(
    records: Sequence[Record], methods: Sequence[str]
) -> Iterator[tuple[Sequence[Record], dict[str, Any]]]:
    """The looks of all runs, each with the style of its method; the first has the label."""
    for number, name in enumerate(METHODS):
        runs = grouped(records, "method").get(name, []) if name in methods else []
        for count, record in enumerate(runs):
            yield record["looks"], style(number) | {"label": None if count else name}


_PAIRED = ("mean", "from", "to", "ahead", "p")
_SYMBOLS = {"rate": "rate η", "momentum": "momentum μ", "rho": "weight ρ"}
_HYPER = "The three hyperparameters while the network is trained, one line for each seed."
_ACCURACY = (
    "The best validation accuracy so far by processor time, one line for each seed; random search "
    "starts anew again and again, which does not show."
)
