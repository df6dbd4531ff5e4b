"""The format of MNIST, and of data sets that took it over: four IDX files of unsigned bytes.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), 1998.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from rfho.datasets.base import (
    Home,
    LabelledImages,
    TrainTest,
    damaged,
    find,
    labelled,
    locate,
    read_bytes,
)


class IdxFiles(NamedTuple):
    """Images and labels of a training and a test part.

    Attributes:
        folder: the folder they lie in, within that of all data files.
        url: the public folder of the files, each compressed by gzip.
        checksums: ``sha256:…`` or ``md5:…`` of each published file, by its name up to ``-ubyte``.
        class_names: one name per class.
    """

    folder: str
    url: str
    checksums: dict[str, str]
    class_names: tuple[str, ...]

    def load(self) -> TrainTest:
        """Both parts, images ``(n, height, width)`` in [0, 1].

        Raises:
            DataNotFoundError: a file is in no folder and cannot be downloaded.
            DataFormatError: a file is truncated or no IDX file.
        """
        return TrainTest(self._part("train"), self._part("t10k"))

    def _part(self, prefix: str) -> LabelledImages:
        pixels = read_idx(self._path(f"{prefix}-images-idx3"), dimensions=3)
        labels = read_idx(self._path(f"{prefix}-labels-idx1"), dimensions=1)
        return labelled(pixels, labels, self.class_names, source=f"{self.folder}/{prefix}-*")

    def _path(self, stem: str) -> Path:
        file = f"{stem}-ubyte.gz"
        home = Home(f"{self.url}/{file}", self.checksums[stem])
        return find(f"{self.folder}/{stem}-ubyte") or locate(f"{self.folder}/{file}", home=home)


def read_idx(path: Path, *, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array of an IDX file of unsigned bytes.

    The format: two zero bytes, 8 for "unsigned byte", the number of dimensions, each dimension as
    a big-endian 32-bit integer, then the data in C order.

    Raises:
        DataFormatError: wrong magic number, or more or fewer bytes than the header promises.
    """
    content = read_bytes(path)
    magic, start = bytes([0, 0, 8, dimensions]), 4 + 4 * dimensions
    if content[:4] != magic or len(content) < start:
        raise damaged(
            path, f"starts with {content[:4].hex(' ')}, not with the magic number {magic.hex(' ')}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", dimensions, offset=4))
    if min(shape) < 0 or len(content) - start != math.prod(shape):
        raise damaged(path, f"has {len(content) - start} bytes of data for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
