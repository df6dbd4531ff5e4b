"""Images as rows of numbers, split in three parts that are each balanced over the classes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from rfho.datasets import (
    LabelledImages,
    balanced_subset,
    load_cifar10_subset,
    load_digits,
    load_fashion_mnist,
    load_mnist,
)
from rfho.runs.settings import SettingsError, one_of

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

    def seen_as(self, change: Callable[[np.ndarray], np.ndarray]) -> "ImageSplit":
        """The split with other rows in place of the images."""
        parts = (self.train, self.valid, self.test)
        train, valid, test = ((change(images), labels) for images, labels in parts)
        return self._replace(train=train, valid=valid, test=test, shape=train[0].shape[1:])


def load_pools(name: str) -> tuple[LabelledImages, LabelledImages | None]:
    """Training pictures, and the test pictures of those who made the data set, if they did."""
    match name:
        case "mnist":
            return load_mnist()
        case "fashion-mnist":
            return load_fashion_mnist()
        case "cifar-10":
            return load_cifar10_subset()
        case _:
            return load_digits(), None


def load_image_split(name: str, sizes: tuple[int, ...], *, seed: int) -> ImageSplit:
    """Disjoint random parts, of the official training part where there is one.

    Args:
        name: one of `IMAGE_SETS`; of CIFAR-10 a subset of 4000 training and 1000 test pictures.
        sizes: examples in training, validation and test part; without the last, the test part is the
            official one, or all that is left where there is none.
        seed: decides which.

    Raises:
        SettingsError: the data set is too small for these sizes.
        DataNotFoundError, DataFormatError: its files are missing or damaged.
    """
    pool, official = load_pools(name)
    parts = random_parts(pool.labels, sizes, name, seed=seed)
    split = [(pool, at) for at in parts]
    if len(sizes) == 2 and official is not None:
        split.append((official, np.arange(len(official.labels))))
    elif len(sizes) == 2:
        split.append((pool, np.setdiff1d(np.arange(len(pool.labels)), np.concatenate(parts))))
    train, valid, test = (
        (one.images[at].reshape(len(at), -1), one.labels[at]) for one, at in split
    )
    return ImageSplit(train, valid, test, pool.images.shape[1:], pool.class_names)


def random_parts(
    labels: Int32[np.ndarray, " n"], sizes: tuple[int, ...], name: str, *, seed: int
) -> list[Int[np.ndarray, " _"]]:
    """The positions of disjoint random parts: for training, validation and perhaps test.

    Raises:
        SettingsError: ``name``, whose labels these are, is too small for these sizes.
    """
    left, parts = np.arange(len(labels)), list[np.ndarray]()
    for number, size in enumerate(sizes):
        try:
            chosen = left[balanced_subset(labels[left], size, seed=seed + 1000 * number)]
        except ValueError as error:
            raise SettingsError(
                f"{_PARTS[len(sizes)]} = {sizes}: {name} has too few examples for parts with equally "
                f"many of each class ({error}); lower one of them"
            ) from error
        parts.append(chosen)
        left = np.setdiff1d(left, chosen)
    return parts


_PARTS = {2: "train, valid", 3: "train, valid, test"}
