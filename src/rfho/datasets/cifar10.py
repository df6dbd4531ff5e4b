"""CIFAR-10: 50,000 + 10,000 colour pictures of 32 x 32 pixels.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The binary version
is read (``cifar-10-batches-bin/data_batch_1.bin`` … ``test_batch.bin``, or the published archive
of them), never the pickled one. A record is one byte of label and 3072 bytes of pixels: 1024 red,
1024 green, 1024 blue, each row by row.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from rfho.datasets.base import TrainTest, labelled
from rfho.datasets.files import Home, find, locate
from rfho.errors import DataFormatError
from rfho.files import Array, damaged, read_arrays, read_bytes, tar_members

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32
_RECORDS = 10_000
_UNPACKED = 2**28
_ARCHIVE = "cifar-10-binary.tar.gz"
_HOME = Home(
    f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}",
    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


class Records(NamedTuple):
    """Raw pixels ``(n, 32, 32, 3)`` and labels ``(n,)`` as stored, both bytes."""

    pixels: UInt8[np.ndarray, "n 32 32 3"]
    labels: UInt8[np.ndarray, " n"]


def load_cifar10() -> TrainTest:
    """All 60,000 pictures, images ``(n, 32, 32, 3)`` in [0, 1]; takes 0.75 GB as float32.

    Raises:
        DataNotFoundError: neither the batches nor the archive are in a folder, and the archive
            (170 MB) cannot be downloaded.
        DataFormatError: a batch is truncated.

    Example:
        >>> from rfho.datasets import load_cifar10
        >>> train, test = load_cifar10()  # doctest: +SKIP
    """
    train, test = _batches()
    return _finished(train, test, source=_FOLDER)


def load_cifar10_subset() -> TrainTest:
    """The first 400 training pictures of each class and the first 1000 test pictures.

    Read from ``cifar10_subset.npz`` if that is there, else cut from the whole data set: the same
    pictures in the same order.

    Returns:
        4000 training and 1000 test images ``(n, 32, 32, 3)`` in [0, 1].

    Raises:
        DataNotFoundError: neither the subset nor the whole data set can be had.
        DataFormatError: a file is truncated or has other shapes.

    Example:
        >>> from rfho.datasets import load_cifar10_subset
        >>> train, test = load_cifar10_subset()  # doctest: +SKIP
    """
    path = find("cifar10_subset.npz")
    if path is None:
        train, test = _batches()
        return _finished(first_of_each(train, 400), _first(test, 1000), source=_FOLDER)
    classes = len(CLASS_NAMES)
    schema = [
        each
        for part in ("train", "test")
        for each in (
            Array(f"x_{part}", (np.uint8,), (part, 32, 32, 3)),
            Array(f"y_{part}", (np.integer,), (part,), lowest=0, below=classes),
        )
    ]
    arrays = read_arrays(path, *schema)
    return _finished(Records(*arrays[:2]), Records(*arrays[2:]), source=str(path))


def decode_batch(content: bytes, *, records: int, source: str) -> Records:
    """The records of one binary batch.

    Raises:
        DataFormatError: the batch has not exactly ``records`` records of 3073 bytes.
    """
    if len(content) != records * _RECORD:
        raise DataFormatError(
            f"{source} has {len(content)} bytes where {records} records of {_RECORD} bytes were "
            "expected: the file is damaged, replace it by a fresh copy"
        )
    table = np.frombuffer(content, np.uint8).reshape(records, _RECORD)
    planes = table[:, 1:].reshape(records, 3, 32, 32)
    return Records(planes.transpose(0, 2, 3, 1), table[:, 0])


def read_batches(folder: Path, *, records: int) -> tuple[Records, Records]:
    """Training and test records of a folder of binary batches with ``records`` records each."""
    contents = [read_bytes(folder / name, records * _RECORD) for name in (*_TRAIN, _TEST)]
    return _joined(contents, records=records, source=str(folder))


def read_archive(path: Path, *, records: int) -> tuple[Records, Records]:
    """As `read_batches`, straight from the published archive; nothing is unpacked to disk.

    Raises:
        DataFormatError: the archive is truncated, or a batch is missing or of another size.
    """
    wanted = [f"{_FOLDER}/{name}" for name in (*_TRAIN, _TEST)]
    found = tar_members(path, lambda name: name in wanted, most=_UNPACKED)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise damaged(path, f"has no {missing[0]!r} in it")
    return _joined([found[name] for name in wanted], records=records, source=str(path))


def first_of_each(records: Records, count: int) -> Records:
    """The first ``count`` records of each class, in the original order."""
    positions = [np.flatnonzero(records.labels == label)[:count] for label in range(10)]
    chosen = np.sort(np.concatenate(positions))
    return Records(records.pixels[chosen], records.labels[chosen])


def _batches() -> tuple[Records, Records]:
    folder = find(_FOLDER, f"cifar10/{_FOLDER}")
    if folder is not None:
        return read_batches(folder, records=_RECORDS)
    return read_archive(locate(_ARCHIVE, home=_HOME), records=_RECORDS)


def _joined(contents: list[bytes], *, records: int, source: str) -> tuple[Records, Records]:
    names = (*_TRAIN, _TEST)
    *train, test = (
        decode_batch(content, records=records, source=f"{source}: {name}")
        for name, content in zip(names, contents, strict=True)
    )
    pixels = np.concatenate([batch.pixels for batch in train])
    return Records(pixels, np.concatenate([batch.labels for batch in train])), test


def _first(records: Records, count: int) -> Records:
    return Records(records.pixels[:count], records.labels[:count])


def _finished(train: Records, test: Records, *, source: str) -> TrainTest:
    return TrainTest(
        labelled(train.pixels, train.labels, CLASS_NAMES, source=source),
        labelled(test.pixels, test.labels, CLASS_NAMES, source=source),
    )
