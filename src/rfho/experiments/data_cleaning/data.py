"""The data of hyper-cleaning: a training set with wrong labels, a clean validation set, a test set."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from rfho.datasets import (
    LabelledImages,
    balanced_subset,
    flip_labels,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    random_split,
)
from rfho.runs.settings import SettingsError


class CleaningData(NamedTuple):
    """One split with its wrong labels.

    Attributes:
        train, valid, test: images as rows, in [0, 1].
        given: the labels of the training images, some of them wrong.
        true: their right labels.
        wrong: where the two differ.
        valid_labels, test_labels: right labels.
        image_shape: height and width.
        class_names: one per class.
        noise: the fraction of wrong labels.
        seed: what decided all of this.
    """

    train: Float32[np.ndarray, "n pixels"]
    given: Int32[np.ndarray, " n"]
    true: Int32[np.ndarray, " n"]
    wrong: Bool[np.ndarray, " n"]
    valid: Float32[np.ndarray, "v pixels"]
    valid_labels: Int32[np.ndarray, " v"]
    test: Float32[np.ndarray, "t pixels"]
    test_labels: Int32[np.ndarray, " t"]
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    noise: float
    seed: int


def load_cleaning_data(
    name: str, sizes: tuple[int, int, int], *, noise: float, seed: int
) -> CleaningData:
    """A class-balanced subset, split in three at random, with wrong labels in its training part.

    The test images too are drawn from the official training part, as the authors did.

    Raises:
        SettingsError: the data set is too small for these sizes.
        DataNotFoundError, DataFormatError: its files are missing or damaged.
    """
    pool = _pool(name)
    try:
        subset = balanced_subset(pool.labels, sum(sizes), seed=seed)
    except ValueError as error:
        raise SettingsError(
            f"train, valid, test = {sizes}: {name} is too small for a balanced subset of "
            f"{sum(sizes)} ({error}); lower one of them"
        ) from error
    images = pool.images[subset].reshape(len(subset), -1)
    labels = pool.labels[subset]
    train, valid, test = random_split(len(subset), sizes, seed=seed)
    classes = len(pool.class_names)
    flips = flip_labels(labels[train], round(noise * len(train)), classes=classes, seed=seed)
    return CleaningData(
        images[train],
        flips.labels,
        labels[train],
        flips.mask,
        images[valid],
        labels[valid],
        images[test],
        labels[test],
        pool.images.shape[1:],
        pool.class_names,
        noise,
        seed,
    )


def _pool(name: str) -> LabelledImages:
    match name:
        case "mnist":
            return load_mnist().train
        case "fashion-mnist":
            return load_fashion_mnist().train
        case _:
            return load_digits()
