"""All data sets by their names: what each is, whether it is there, and how to bring it here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rfho.datasets.cifar10 import load_cifar10, load_cifar10_subset
from rfho.datasets.digits import load_digits
from rfho.datasets.fashion_mnist import load_fashion_mnist
from rfho.datasets.files import find
from rfho.datasets.mnist import load_mnist
from rfho.datasets.newsgroups import load_newsgroups
from rfho.datasets.omniglot import load_omniglot
from rfho.datasets.spoken_digits import load_spoken_digits
from rfho.datasets.text import load_tiny_shakespeare
from rfho.datasets.timit import load_timit
from rfho.errors import DataNotFoundError


class DataSet(NamedTuple):
    """A data set.

    Attributes:
        name: by which a command names it.
        about: what it is.
        source: where it comes from when it is not there.
        load: reads it, and downloads it before if it has a public home.
        files: names of files or folders, the first of which to exist shows that it is there.
    """

    name: str
    about: str
    source: str
    load: Callable[[], Any]
    files: tuple[str, ...]

    def here(self) -> Path | None:
        """Where it lies; None if it does not.

        Raises:
            DataNotFoundError: ``RFHO_DATA`` is set but names no folder.
            DataFormatError: it is listed in ``SHA256SUMS`` with another checksum.
        """
        return find(*self.files)


def _idx(folder: str) -> tuple[str, ...]:
    return f"{folder}/train-images-idx3-ubyte", f"{folder}/train-images-idx3-ubyte.gz"


_CIFAR10 = ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")

DATA_SETS = (
    DataSet("digits", "1797 digits of 8 x 8 pixels", "with scikit-learn", load_digits, ()),
    DataSet("mnist", "70,000 digits of 28 x 28 pixels", "11 MB", load_mnist, _idx("mnist")),
    DataSet(
        "fashion-mnist",
        "70,000 pictures of clothes, 28 x 28 pixels",
        "31 MB",
        load_fashion_mnist,
        _idx("fashion_mnist"),
    ),
    DataSet("cifar10", "60,000 pictures of 32 x 32 pixels", "170 MB", load_cifar10, _CIFAR10),
    DataSet(
        "cifar10-subset",
        "5000 pictures of CIFAR-10",
        "170 MB",
        load_cifar10_subset,
        ("cifar10_subset.npz", *_CIFAR10),
    ),
    DataSet(
        "newsgroups",
        "18,846 messages in 20 groups, as counts of words",
        "14 MB",
        load_newsgroups,
        ("news20_counts_train.npz", "20news-bydate.tar.gz"),
    ),
    DataSet(
        "omniglot",
        "32,460 drawings of 1623 characters",
        "14 MB",
        load_omniglot,
        ("omniglot_28x28_bits.npz", "omniglot"),
    ),
    DataSet(
        "spoken-digits",
        "3000 recordings of digits by six speakers",
        "to be cloned",
        load_spoken_digits,
        ("fsdd_logmel40.npz", "free-spoken-digit-dataset/recordings"),
    ),
    DataSet(
        "tiny-shakespeare",
        "a text of 1,115,394 characters",
        "1 MB",
        load_tiny_shakespeare,
        ("tinyshakespeare.txt",),
    ),
    DataSet("timit", "6300 spoken sentences", "to be bought", load_timit, ("timit", "TIMIT")),
)
"""In the order in which they are listed."""


def data_set(name: str) -> DataSet:
    """The data set of a name.

    Raises:
        DataNotFoundError: there is none.
    """
    by_name = {each.name: each for each in DATA_SETS}
    if name in by_name:
        return by_name[name]
    raise DataNotFoundError(
        f"unknown data set {name!r}: the data sets are {', '.join(by_name)}; see rfho data list"
    )
