"""Tables with signal beside noise, whose columns fall into as many groups as one likes."""

from typing import NamedTuple

import numpy as np

from rfho.datasets import load_digits, load_spoken_digits, random_split
from rfho.runs.settings import SettingsError, one_of

TASKS = one_of("digits", "speech")
"""The check of a setting that names the table."""


class Part(NamedTuple):
    """Examples."""

    x: np.ndarray
    y: np.ndarray


class RaceTable(NamedTuple):
    """Three parts, and the group of each column; the first half of the columns tells, the other is noise."""

    train: Part
    valid: Part
    test: Part
    group: np.ndarray
    classes: int

    @property
    def groups(self) -> int:
        """m, how many penalties there are."""
        return int(self.group.max()) + 1


def race_table(task: str, sizes: tuple[int, int], *, groups: int, seed: int) -> RaceTable:
    """The table of one race.

    Args:
        task: digits, whose columns are pixels and pixels of other, random images; or speech, the bands of
            spoken digits in four quarters, and as many columns of normal noise.
        sizes: training and validation examples; the test set is what is left over.
        groups: m; neighbouring columns are in one group.
        seed: of the split, and of the noise.

    Raises:
        SettingsError: the table has fewer columns than groups, or too few examples.
    """
    rng = np.random.default_rng(seed)
    x, y = _digits(rng) if task == "digits" else _speech(rng)
    if groups > x.shape[1]:
        raise SettingsError(f"{groups} groups, but {task} has {x.shape[1]} columns: lower groups")
    try:
        train, valid = random_split(len(y), sizes, seed=seed)
    except ValueError as error:
        raise SettingsError(f"{error}: lower train or valid") from error
    x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-3)
    rest = np.setdiff1d(np.arange(len(y)), np.concatenate([train, valid]))
    parts = [Part(x[rows].astype(np.float32), y[rows]) for rows in (train, valid, rest)]
    group = np.arange(x.shape[1]) * groups // x.shape[1]
    return RaceTable(parts[0], parts[1], parts[2], group, classes=int(y.max()) + 1)


def _digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    ink = digits.images.reshape(len(digits.labels), -1)
    noise = [rng.permutation(column)[:, None] for column in ink.T]
    return np.concatenate([ink, *noise], axis=1), np.asarray(digits.labels)


def _speech(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    speech = load_spoken_digits()
    ends = zip(speech.offsets[:-1], speech.offsets[1:], strict=True)
    quarters = [
        np.stack([part.mean(axis=0) for part in np.array_split(speech.frames[a:b], 4)])
        for a, b in ends
    ]
    bands = np.stack(quarters).transpose(0, 2, 1).reshape(len(quarters), -1)
    return np.concatenate([bands, rng.normal(size=bands.shape)], axis=1), speech.digit
