"""Tables and pictures of races: the way down, what is left by number of penalties, the penalties themselves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rfho.experiments.races.comparison import marked
from rfho.experiments.races.contest import Standing
from rfho.runs.pictures import curves, figure, image_grid
from rfho.runs.study import Record

_PANELS = {"objective": "validation loss", "test loss": "test loss"}

COLUMNS = {
    "row": None,
    "objective": 4,
    "test loss": 4,
    "test score %": 1,
    "moves": 0,
    "CPU s": 1,
    "of which compiling": 1,
}


def ways_down(standings: dict[str, Standing]) -> Figure:
    """The best objective against CPU seconds."""
    return curves(
        {name: standing.way_down[1] for name, standing in standings.items()},
        {name: standing.way_down[0] for name, standing in standings.items()},
        x_label="CPU seconds, compilation included",
        y_label="validation loss, best so far",
        held=True,
    )


def by_number(records: Sequence[Record]) -> Figure:
    """Validation loss and test loss at the end of the budget, against the number of penalties."""
    picture, axes = figure(columns=2, width=9.6)
    racers = list(dict.fromkeys(record["racer"] for record in records))
    for axis, (what, label) in zip(axes[0], _PANELS.items(), strict=True):
        for number, racer in enumerate(racers):
            own = [record for record in records if record["racer"] == racer]
            counts = sorted({record["penalties"] for record in own})
            runs = [[r[what] for r in own if r["penalties"] == count] for count in counts]
            middle = [np.median(each) for each in runs]
            (line,) = axis.plot(counts, middle, label=racer, **marked(number))
            low, high = ([end(each) for each in runs] for end in (min, max))
            axis.fill_between(counts, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        axis.set(xscale="log", xlabel="penalties m", ylabel=label)
    axes[0, 0].legend(frameon=False)
    return picture


def penalty_images(log_penalties: np.ndarray) -> Figure:
    """Penalties of the 128 columns of digits as two images: of pixels, and of noise."""
    images = -log_penalties.reshape(2, 8, 8)
    low, high = float(images.min()), float(images.max())
    limits = low, high if high > low else low + 1
    return image_grid(images, ["pixels", "noise"], columns=2, limits=limits)
