"""What the data sets share: labelled images, and arrays that are read by a schema."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from rfho.errors import DataFormatError
from rfho.files import Array, read_arrays

__all__ = ["Array", "LabelledImages", "TrainTest", "labelled", "read_arrays", "unit_interval"]


class LabelledImages(NamedTuple):
    """Images with their classes.

    Attributes:
        images: ``(n, height, width)`` or ``(n, height, width, channels)``, in [0, 1].
        labels: ``(n,)``, label k is the class ``class_names[k]``.
        class_names: one name per class.
    """

    images: Float32[np.ndarray, "n height width *channels"]
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]


class TrainTest(NamedTuple):
    """The two parts that the authors of a data set fixed."""

    train: LabelledImages
    test: LabelledImages


def unit_interval(pixels: np.ndarray, largest: int = 255) -> Float32[np.ndarray, "..."]:
    """Pixel values 0..largest as float32 numbers in [0, 1].

    Example:
        >>> unit_interval(np.array([0, 51, 255], dtype=np.uint8))
        array([0. , 0.2, 1. ], dtype=float32)
    """
    return pixels.astype(np.float32) / np.float32(largest)


def labelled(
    pixels: UInt8[np.ndarray, "n height width *channels"],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    source: str,
) -> LabelledImages:
    """Pixels and raw labels of one file, checked against each other.

    Raises:
        DataFormatError: the numbers differ, or a label names no class; the message starts with
            ``source``.
    """
    if len(pixels) != len(labels):
        raise DataFormatError(f"{source}: {len(pixels)} images but {len(labels)} labels")
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(class_names)):
        raise DataFormatError(
            f"{source}: labels run from {labels.min()} to {labels.max()}, but there are "
            f"{len(class_names)} classes: the file is damaged or of another data set"
        )
    return LabelledImages(unit_interval(pixels), labels.astype(np.int32), class_names)
