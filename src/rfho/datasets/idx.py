"""The format of MNIST, and of data sets that took it over: four IDX files of unsigned bytes.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), 1998.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from rfho.datasets.base import LabelledImages, TrainTest, labelled
from rfho.datasets.files import Home, find, locate
from rfho.files import MOST_BYTES, damaged, unpacked


class IdxFiles(NamedTuple):
    """Images and labels of a training and a test part.

    Attributes:
        folder: the folder they lie in, within that of all data files.
        url: the public folder of the files, each compressed by gzip.
        checksums: ``sha256:…`` or ``md5:…`` of each published file, by its name up to ``-ubyte``.
        class_names: one name per class.
        unpacked: the same of the files when they are decompressed, as far as they are known.
    """

    folder: str
    url: str
    checksums: dict[str, str]
    class_names: tuple[str, ...]
    unpacked: dict[str, str]

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
        plain = find(f"{self.folder}/{stem}-ubyte", checksum=self.unpacked.get(stem))
        return plain or locate(f"{self.folder}/{file}", home=home)


def read_idx(path: Path, *, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array of an IDX file of unsigned bytes.

    The format: two zero bytes, 8 for "unsigned byte", the number of dimensions, each dimension as
    a big-endian 32-bit integer, then the data in C order.

    Raises:
        DataFormatError: wrong magic number, or more or fewer bytes than the header says, which is looked at
            before anything else is unpacked.
    """
    magic = bytes([0, 0, 8, dimensions])
    with unpacked(path) as stream:
        head = stream.read(4 + 4 * dimensions)
        if head[:4] != magic or len(head) < 4 + 4 * dimensions:
            raise damaged(
                path, f"starts with {head[:4].hex(' ')}, not with the magic number {magic.hex(' ')}"
            )
        shape = tuple(int(size) for size in np.frombuffer(head, ">i4", dimensions, offset=4))
        count = math.prod(shape)
        if min(shape) < 1 or count > MOST_BYTES:
            raise damaged(path, f"has the shape {shape}, but 1 to {MOST_BYTES} bytes were expected")
        content = stream.read(count + 1)
    if len(content) != count:
        found = str(len(content)) if len(content) < count else f"more than {count}"
        raise damaged(path, f"has {found} bytes of data for the shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)
