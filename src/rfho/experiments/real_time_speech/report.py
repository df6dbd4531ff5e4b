"""What a run of real-time tuning on speech shows: how each method fared, as table and pictures."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rfho.runs.pictures import COLOURS, LINES, figure
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Table, make_table, spread

VANILLA, RS, RTHO, RTHO_NT = "vanilla", "RS", "RTHO", "RTHO-NT"
METHODS = (VANILLA, RS, RTHO, RTHO_NT)


class Look(NamedTuple):
    """What is seen when a run is looked at.

    Attributes:
        step: inner steps done.
        seconds: of processor time, since the method began.
        accuracy: on all validation frames, in percent.
        hyper: λ there.
    """

    step: int
    seconds: float
    accuracy: float
    hyper: dict[str, float]


class Run(NamedTuple):
    """How a method fared with one seed.

    Attributes:
        best: the look of the highest validation accuracy.
        test: the accuracy of that network on the test frames, in percent.
        looks: all looks; of every trial, if there were several.
        trials: how many training runs.
    """

    best: Look
    test: float
    looks: tuple[Look, ...]
    trials: int = 1

    @property
    def seconds(self) -> float:
        """Processor time in all."""
        return self.looks[-1].seconds


def add_pictures(folder: RunFolder, found: dict[str, list[Run]]) -> None:
    """The hyperparameters by step, and the accuracies by time."""
    folder.add_picture("hyper", draw_hyper(found), _HYPER)
    folder.add_picture("accuracy", draw_accuracies(found), _ACCURACY)


def results(found: dict[str, list[Run]], data: str, *, note: str) -> Table:
    """Accuracies and times over the seeds, and by how much RS is beaten with the same seed."""
    searched = [one.test for one in found[RS]]
    rows: list[list[Cell]] = []
    for name, runs in found.items():
        if not runs:
            continue
        gain = [one.test - test for one, test in zip(runs, searched, strict=False)]
        rows.append([f"{name}: {_MEANING[name]}", spread([one.test for one in runs])])
        rows[-1] += [spread(gain) if gain and name != RS else None]
        rows[-1] += [spread([one.best.accuracy for one in runs])]
        rows[-1] += [spread([one.seconds / 60 for one in runs])]
        rows[-1] += [spread([float(one.trials) for one in runs])]
    columns = [
        Column("method"),
        Column("test frames %", 2),
        Column("more than RS", 2),
        Column("validation frames %", 2),
        Column("processor minutes", 2),
        Column("training runs", 1),
    ]
    return make_table(f"Frames named rightly: {data}", columns, rows, note=note)


def draw_hyper(found: dict[str, list[Run]]) -> Figure:
    """η, μ and ρ by inner step, one line for each seed."""
    drawn, axes = figure(1, 3, width=9.6, height=3.6)
    for axis, key in zip(axes[0], ("rate", "momentum", "rho"), strict=True):
        for number, name in enumerate(METHODS):
            for count, one in enumerate(found[name] if name in (RTHO, RTHO_NT) else ()):
                steps = [look.step for look in one.looks]
                label = name if count == 0 else None
                values = [look.hyper[key] for look in one.looks]
                axis.plot(steps, values, LINES[number], color=COLOURS[number], label=label)
        axis.set(xlabel="inner step t", ylabel=_SYMBOLS[key])
        axis.set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return drawn


def draw_accuracies(found: dict[str, list[Run]]) -> Figure:
    """The best validation accuracy so far by processor time, one line for each seed."""
    drawn, axes = figure()
    axis = axes[0, 0]
    for number, (name, runs) in enumerate(found.items()):
        for count, one in enumerate(runs):
            minutes = [look.seconds / 60 for look in one.looks]
            best = np.maximum.accumulate([look.accuracy for look in one.looks])
            label = name if count == 0 else None
            axis.plot(minutes, best, LINES[number], color=COLOURS[number], label=label)
    highest = max(one.best.accuracy for runs in found.values() for one in runs)
    axis.set_ylim(highest - 12, highest + 1)
    axis.set(xlabel="processor minutes", ylabel="best validation accuracy so far (%)")
    axis.legend(frameon=False)
    return drawn


_SYMBOLS = {"rate": "rate η", "momentum": "momentum μ", "rho": "weight ρ"}
_MEANING = {
    VANILLA: "η, μ kept, ρ = 0",
    RS: "η, μ, ρ drawn at random, the time of RTHO",
    RTHO: "η, μ, ρ learned",
    RTHO_NT: "likewise, from zero",
}
_HYPER = "The three hyperparameters while the network is trained, one line for each seed."
_ACCURACY = (
    "The best validation accuracy so far by processor time, one line for each seed; random search "
    "starts anew again and again, which does not show."
)
