"""What a run of few-shot learning shows: an episode, curves of meta-testing, and accuracies."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from rfho.experiments.hyper_representation.ground_models import Hyper
from rfho.runs.pictures import curves, image_grid
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Table, make_table


class Learned(NamedTuple):
    """What meta-training with some number of shots came to.

    Attributes:
        hyper: the network and the logarithm of the inner rate.
        steps: the outer steps after which meta-testing was looked at, 0 among them.
        accuracies: in percent, on the first quarter of the test episodes.
    """

    hyper: Hyper
    steps: list[int]
    accuracies: list[float]


def results(rows: Sequence[Sequence[Cell]], data: str, *, note: str) -> Table:
    """All that was compared."""
    columns = [
        Column("learner"),
        Column("examples per class", 0),
        Column("test accuracy %", 1),
        Column("inner rate"),
    ]
    title = f"Few-shot classification of new classes: {data}"
    return make_table(title, columns, rows, note=note)


def add_episode(
    folder: RunFolder, episode: UInt8[np.ndarray, "ways drawings height width"]
) -> None:
    """What an episode of meta-testing shows: one drawing of each class, and three to be recognised."""
    ways = len(episode)
    images = np.concatenate([episode[:, 0], *(episode[:, number] for number in (1, 2, 3))])
    letters = [chr(ord("A") + number % 26) for number in range(ways)]
    captions = [f"class {letter}" for letter in letters] + [f"{letter}?" for letter in 3 * letters]
    drawn = image_grid(images / 255, captions, columns=ways)
    folder.add_picture("episode", drawn, _EPISODE)


def add_curves(folder: RunFolder, learned: Mapping[int, Learned]) -> None:
    """Accuracies of meta-testing by outer step, for each number of shots."""
    looked = [each for each in learned.values() if len(each.steps) > 1]
    if not looked:
        return
    steps = min((each.steps for each in looked), key=len)
    series = {
        f"{shots} of each class to learn from": np.array(each.accuracies[: len(steps)])
        for shots, each in learned.items()
        if len(each.steps) > 1
    }
    drawn = curves(
        series, np.array(steps), x_label="outer step", y_label="accuracy on new classes in %"
    )
    folder.add_picture("accuracy", drawn, _CURVES)


_EPISODE = (
    "An episode of meta-testing. First row: one drawing of each class, to learn from. Below: drawings "
    "by others, to be recognised."
)
_CURVES = "Accuracy in episodes of classes that meta-training never saw, by outer step."
