"""Tables and pictures of races: the way down, what is left by number of penalties, the penalties themselves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rfho.experiments.races.comparison import MARKERS
from rfho.experiments.races.contest import Standing
from rfho.runs.pictures import COLOURS, LINES, figure, image_grid
from rfho.runs.study import Record

_PANELS = {"objective": "validation loss", "test loss": "test loss"}

COLUMNS = {
    "racer": None,
    "penalties": 0,
    "objective": 4,
    "test loss": 4,
    "test score %": 1,
    "moves": 0,
    "CPU s": 1,
    "of which compiling": 1,
}


def ways_down(standings: dict[str, Standing]) -> Figure:
    """The best objective against CPU seconds."""
    picture, axes = figure()
    axis = axes[0, 0]
    for number, (name, standing) in enumerate(standings.items()):
        times, values = np.array(standing.path).T
        axis.step(
            times,
            values,
            where="post",
            label=name,
            color=COLOURS[number],
            linestyle=LINES[number],
        )
    axis.set(xlabel="CPU seconds, compilation included", ylabel="validation loss, best so far")
    axis.legend(frameon=False)
    return picture


def by_number(records: Sequence[Record]) -> Figure:
    """Validation loss and test loss at the end of the budget, against the number of penalties."""
    picture, axes = figure(columns=2, width=9.6)
    racers = list(dict.fromkeys(record["racer"] for record in records))
    for axis, (what, label) in zip(axes[0], _PANELS.items(), strict=True):
        for number, racer in enumerate(racers):
            own = [record for record in records if record["racer"] == racer]
            counts = sorted({record["penalties"] for record in own})
            runs = [[r[what] for r in own if r["penalties"] == count] for count in counts]
            style = {"color": COLOURS[number], "linestyle": LINES[number % len(LINES)]}
            style["marker"] = MARKERS[number % len(MARKERS)]
            axis.plot(counts, [np.median(each) for each in runs], label=racer, **style)
            low, high = ([end(each) for each in runs] for end in (min, max))
            axis.fill_between(counts, low, high, alpha=0.15, color=COLOURS[number], linewidth=0)
        axis.set(xscale="log", xlabel="penalties m", ylabel=label)
    axes[0, 0].legend(frameon=False)
    return picture


def penalty_images(log_penalties: np.ndarray) -> Figure:
    """Penalties of the 128 columns of digits as two images: of pixels, and of noise."""
    images = -log_penalties.reshape(2, 8, 8)
    low, high = float(images.min()), float(images.max())
    limits = low, high if high > low else low + 1
    return image_grid(images, ["pixels", "noise"], columns=2, limits=limits)
