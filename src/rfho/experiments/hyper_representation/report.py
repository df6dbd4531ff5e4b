"""Pictures of few-shot learning: an episode, and curves of meta-testing."""

import numpy as np
from jaxtyping import UInt8

from rfho.runs.pictures import curves, image_grid
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import grouped, traced


def add_episode(
    folder: RunFolder, episode: UInt8[np.ndarray, "ways drawings height width"]
) -> None:
    """What an episode of meta-testing shows: one drawing of each class, and up to three to be recognised."""
    ways, drawings = episode[:, :4].shape[:2]
    images = np.concatenate(np.swapaxes(episode[:, :drawings], 0, 1))
    letters = [chr(ord("A") + number % 26) for number in range(ways)]
    asked = [f"{letter}?" for letter in letters] * (drawings - 1)
    captions = [f"class {letter}" for letter in letters] + asked
    drawn = image_grid(images / 255, captions, columns=ways)
    folder.add_picture("episode", drawn, _EPISODE)


def add_curves(folder: RunFolder) -> None:
    """Accuracies of meta-testing by outer step, for each number of shots."""
    looked = grouped(folder.history(), "shots")
    rows = min((rows for rows in looked.values() if len(rows) > 1), key=len, default=[])
    if not rows:
        return
    steps = np.array([row["step"] for row in rows])
    series = {
        f"{shots} of each class to learn from": traced(rows[: len(steps)], "test accuracy %")
        for shots, rows in looked.items()
        if len(rows) > 1
    }
    drawn = curves(series, steps, x_label="outer step", y_label="accuracy on new classes in %")
    folder.add_picture("accuracy", drawn, _CURVES)


_EPISODE = (
    "An episode of meta-testing. First row: one drawing of each class, to learn from. Below: drawings "
    "by others, to be recognised."
)
_CURVES = "Accuracy in episodes of classes that meta-training never saw, by outer step."
