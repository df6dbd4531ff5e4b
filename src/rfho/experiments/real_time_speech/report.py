"""What a run of real-time tuning on speech shows: how each method fared, as table and pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfho.runs.pictures import figure, legend_above, style
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import Record, grouped

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


_SYMBOLS = {"rate": "rate η", "momentum": "momentum μ", "rho": "weight ρ"}
_HYPER = "The three hyperparameters while the network is trained, one line for each seed."
_ACCURACY = (
    "The best validation accuracy so far by processor time, one line for each seed; random search "
    "starts anew again and again, which does not show."
)
