"""What a reproduction says: the published figure beside ours."""

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One claim.

    Attributes:
        what: the experiment, and how it is smaller than the paper's where it is.
        published: the paper's figure or claim.
        ours: what was measured.
        holds: whether the claim does.
    """

    what: str
    published: str
    ours: str
    holds: bool


def folder() -> Path:
    """Where the data are."""
    if "RFHO_DATA" not in os.environ:
        raise SystemExit("the data are looked for in the folder that RFHO_DATA names: set it")
    return Path(os.environ["RFHO_DATA"])


def digits(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of MNIST, flat and between 0 and 1, with their labels; ``part`` is train or t10k."""
    with gzip.open(folder() / f"mnist/{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
    with gzip.open(folder() / f"mnist/{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    return images.reshape(-1, 784).astype(np.float32) / 255, labels.astype(np.int32)
