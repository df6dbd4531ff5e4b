"""The data of hyper-cleaning: a training set with wrong labels, a clean validation set, a test set."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from rfho.datasets import balanced_subset, flip_labels, random_split
from rfho.experiments.parts.image_data import Part, load_pools
from rfho.runs.settings import SettingsError


class CleaningData(NamedTuple):
    """One split with its wrong labels.

    Attributes:
        train: images as rows in [0, 1], and the labels that they are given, some of them wrong.
        valid, test: images, and right labels.
        true: the right labels of the training images.
        image_shape: height and width.
        class_names: one per class.
        noise: the fraction of wrong labels.
        seed: what decided all of this.
    """

    train: Part
    valid: Part
    test: Part
    true: Int32[np.ndarray, " n"]
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    noise: float
    seed: int

    @property
    def wrong(self) -> Bool[np.ndarray, " n"]:
        """Where given and right labels differ."""
        return self.train[1] != self.true


def load_cleaning_data(
    name: str, sizes: tuple[int, int, int], *, noise: float, seed: int
) -> CleaningData:
    """A class-balanced subset, split in three at random, with wrong labels in its training part.

    The test images too are drawn from the official training part, as the authors did.

    Raises:
        SettingsError: the data set is too small for these sizes.
        DataNotFoundError, DataFormatError: its files are missing or damaged.
    """
    pool, _ = load_pools(name)
    try:
        subset = balanced_subset(pool.labels, sum(sizes), seed=seed)
    except ValueError as error:
        raise SettingsError(
            f"train, valid, test = {sizes}: {name} is too small for a balanced subset of "
            f"{sum(sizes)} ({error}); lower one of them"
        ) from error
    images, labels = pool.images[subset].reshape(len(subset), -1), pool.labels[subset]
    parts = random_split(len(subset), sizes, seed=seed)
    (seen, true), valid, test = ((images[part], labels[part]) for part in parts)
    classes = len(pool.class_names)
    given = flip_labels(true, round(noise * len(true)), classes=classes, seed=seed).labels
    described = pool.images.shape[1:], pool.class_names, noise, seed
    return CleaningData((seen, given), valid, test, true, *described)
