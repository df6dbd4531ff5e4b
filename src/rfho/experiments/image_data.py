"""Images as rows of numbers, split in three parts that are each balanced over the classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from rfho.datasets import (
    LabelledImages,
    balanced_subset,
    load_cifar10_subset,
    load_digits,
    load_mnist,
)
from rfho.experiments.settings import SettingsError, one_of

Part = tuple[Float32[np.ndarray, "_ pixels"], Int32[np.ndarray, " _"]]
"""Images as rows in [0, 1], and their labels."""

IMAGE_SETS = one_of("digits", "mnist", "cifar-10")
"""The check of a setting that names the images."""


class ImageSplit(NamedTuple):
    """Training, validation and test part of one data set.

    Attributes:
        train, valid, test: images and labels.
        shape: height and width of an image, and channels if there are several.
        class_names: one per class.
    """

    train: Part
    valid: Part
    test: Part
    shape: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def pixels(self) -> int:
        """How many numbers make an image."""
        return self.train[0].shape[1]


def load_image_split(name: str, sizes: tuple[int, int, int], *, seed: int) -> ImageSplit:
    """Three disjoint random parts, of the official training part where there is one.

    Args:
        name: one of `IMAGE_SETS`; of CIFAR-10 the first 400 training pictures of each class.
        sizes: examples in training, validation and test part.
        seed: decides which.

    Raises:
        SettingsError: the data set is too small for these sizes.
        DataNotFoundError, DataFormatError: its files are missing or damaged.
    """
    pool = _pool(name)
    train, valid, test = (
        (pool.images[chosen].reshape(len(chosen), -1), pool.labels[chosen])
        for chosen in three_parts(pool.labels, sizes, name, seed=seed)
    )
    return ImageSplit(train, valid, test, pool.images.shape[1:], pool.class_names)


def three_parts(
    labels: Int32[np.ndarray, " n"], sizes: tuple[int, int, int], name: str, *, seed: int
) -> list[Int[np.ndarray, " _"]]:
    """The positions of three disjoint random parts.

    Raises:
        SettingsError: ``name``, whose labels these are, is too small for these sizes.
    """
    left, parts = np.arange(len(labels)), list[np.ndarray]()
    for number, size in enumerate(sizes):
        try:
            chosen = left[balanced_subset(labels[left], size, seed=seed + 1000 * number)]
        except ValueError as error:
            raise SettingsError(
                f"train, valid, test = {sizes}: {name} has too few examples for parts with equally "
                f"many of each class ({error}); lower one of them"
            ) from error
        parts.append(chosen)
        left = np.setdiff1d(left, chosen)
    return parts


def _pool(name: str) -> LabelledImages:
    match name:
        case "mnist":
            return load_mnist().train
        case "cifar-10":
            return load_cifar10_subset().train
        case _:
            return load_digits()
