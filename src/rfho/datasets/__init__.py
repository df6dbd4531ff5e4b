"""Data sets of the experiments, and subsets, splits and label noise decided by a seed.

Files are found in the folder that ``RFHO_DATA`` names or in the user's cache; see
`rfho.datasets.files`. Needs the extra ``rfho[cli]``.
"""

from rfho.datasets.base import LabelledImages, TrainTest, unit_interval
from rfho.datasets.cifar10 import load_cifar10, load_cifar10_subset
from rfho.datasets.digits import load_digits
from rfho.datasets.fashion_mnist import load_fashion_mnist
from rfho.datasets.mnist import load_mnist
from rfho.datasets.newsgroups import Newsgroups, TfIdf, load_newsgroups, tf_idf
from rfho.datasets.omniglot import Omniglot, load_omniglot
from rfho.datasets.splits import FlippedLabels, balanced_subset, flip_labels, random_split
from rfho.datasets.spoken_digits import (
    SpokenDigits,
    context_windows,
    frame_values,
    load_spoken_digits,
)
from rfho.datasets.text import Text, load_tiny_shakespeare
from rfho.datasets.timit import PHONES, Timit, load_timit
from rfho.errors import DataFormatError, DataNotFoundError

__all__ = [
    "PHONES",
    "DataFormatError",
    "DataNotFoundError",
    "FlippedLabels",
    "LabelledImages",
    "Newsgroups",
    "Omniglot",
    "SpokenDigits",
    "Text",
    "TfIdf",
    "Timit",
    "TrainTest",
    "balanced_subset",
    "context_windows",
    "flip_labels",
    "frame_values",
    "load_cifar10",
    "load_cifar10_subset",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_newsgroups",
    "load_omniglot",
    "load_spoken_digits",
    "load_timit",
    "load_tiny_shakespeare",
    "random_split",
    "tf_idf",
    "unit_interval",
]
