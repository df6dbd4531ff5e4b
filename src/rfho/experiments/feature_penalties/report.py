"""What one penalty for each feature shows: losses against seconds, and the penalties learned."""

from collections.abc import Mapping, Sequence

import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.figure import Figure

from rfho.experiments.feature_penalties.data import FeatureSplit
from rfho.runs.pictures import COLOURS, LINES, figure, histograms
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import Record

CG_NAME = "implicit, CG"
"""The method whose penalties are drawn."""


def add_losses(folder: RunFolder, history: Mapping[str, Sequence[Record]]) -> None:
    """The picture of `draw`."""
    folder.add_picture("losses", draw(history), _LOSSES)


def draw(history: Mapping[str, Sequence[Record]]) -> Figure:
    """Validation loss against seconds, compilation left out."""
    drawn, axes = figure(height=4.4)
    axis = axes[0, 0]
    for number, (name, rows) in enumerate(history.items()):
        seconds = np.array([row["seconds"] for row in rows])
        seconds[0] = np.median(seconds[1:]) if len(rows) > 1 else 0.0  # the first one compiles
        style = {"color": COLOURS[number % 7], "linestyle": LINES[number % 4], "linewidth": 1.8}
        axis.plot(np.cumsum(seconds), [row["validation loss"] for row in rows], label=name, **style)
    axis.set(xlabel="CPU seconds of outer steps", ylabel="validation loss (cross-entropy)")
    axis.legend(frameon=False)
    return drawn


def add_penalties(
    folder: RunFolder, learned: Mapping[str, Float[Array, " features"]], data: FeatureSplit
) -> None:
    """What conjugate gradients learned, by kind of feature."""
    arrays = {
        name.replace(",", "").replace(" ", "-"): np.asarray(hyper)
        for name, hyper in learned.items()
    }
    folder.add_arrays("penalties", arrays, "λ of every method:")
    if CG_NAME not in learned:
        return
    powers = np.asarray(learned[CG_NAME]) / np.log(10)
    drawn = histograms(
        {name: powers[mask] for name, mask in data.groups.items() if mask.any()},
        x_label=r"learned penalty, $\log_{10} e^{\lambda_j}$",
        y_label="features",
    )
    folder.add_picture("penalties", drawn, "Penalties learned by conjugate gradients.")


_LOSSES = (
    "The validation loss at each outer step against the CPU seconds spent, without compilation. All "
    "methods start at the best shared penalty and at the model trained with it."
)
