"""Handwritten digits of 8 x 8 pixels: comes with scikit-learn, so it always works.

The 1797 images are the test part of the UCI data set "Optical recognition of handwritten digits"
(E. Alpaydin, C. Kaynak, 1998); pixels count ink from 0 to 16.
"""

import numpy as np
from sklearn.datasets import load_digits as load_arrays

from rfho.datasets.base import LabelledImages, unit_interval

CLASS_NAMES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def load_digits() -> LabelledImages:
    """The 1797 digits; there is no official test part, so split them yourself.

    Returns:
        Images ``(1797, 8, 8)`` in [0, 1], labels, and the class names "0".."9".

    Example:
        >>> from rfho.datasets import load_digits
        >>> load_digits().images.shape
        (1797, 8, 8)
    """
    ink, labels = load_arrays(return_X_y=True)
    images = unit_interval(np.asarray(ink), largest=16).reshape(-1, 8, 8)
    return LabelledImages(images, np.asarray(labels, dtype=np.int32), CLASS_NAMES)
