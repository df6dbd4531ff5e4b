"""Where data files are found, how they are read, and how they are refused.

A file is looked for in the folder that the environment variable ``RFHO_DATA`` names, then in the
cache folder of the user. One that is in neither is downloaded into the cache if it has a public
home whose checksum is known; otherwise the error says which file was looked for, where, and what
to do. Nothing is ever unpickled, and a truncated file is refused rather than read in part.
"""

import gzip
import logging
import os
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
from jaxtyping import Float32, Int32, UInt8

from rfho.errors import DataFormatError, DataNotFoundError

VARIABLE = "RFHO_DATA"
"""The environment variable that names the folder of data files."""


class Home(NamedTuple):
    """The public home of a file.

    Attributes:
        url: where it is published.
        checksum: ``sha256:…`` or ``md5:…`` of the published file.
    """

    url: str
    checksum: str


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


def cache_folder() -> Path:
    """The user's cache folder, where downloads are kept."""
    return Path(pooch.os_cache("rfho"))


def find(*names: str) -> Path | None:
    """The first of several names (with ``/`` between folders) that exists, or None.

    Raises:
        DataNotFoundError: ``RFHO_DATA`` is set but names no folder.
    """
    candidates = (folder / name for name in names for folder in _folders())
    return next((path for path in candidates if path.exists()), None)


def locate(name: str, *, home: Home | None, advice: str = "") -> Path:
    """The path of a data file, downloaded if need be.

    Args:
        name: path inside the folder of data files.
        home: where it is published, or None if no stable home with a known checksum exists.
        advice: how to obtain the file, for the error message.

    Raises:
        DataNotFoundError: it is in no folder, and has no home or could not be downloaded.
    """
    found = find(name)
    if found is not None:
        return found
    if home is None:
        raise DataNotFoundError(f"{_looked_for(name)}{advice and f' ({advice})'}")
    return _download(name, home)


def damaged(path: Path, reason: str) -> DataFormatError:
    """The error about a file that is not what its name promises."""
    return DataFormatError(f"{path} {reason}: the file is damaged, replace it by a fresh copy")


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if its name ends in ``.gz``.

    Raises:
        DataFormatError: the compressed file is truncated or damaged.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(path, str(error)) from error


def read_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """The named arrays of an ``npz`` file, in the order of the names; never unpickles.

    Raises:
        DataFormatError: not an ``npz`` file, truncated, an array is missing or is an object array.
    """
    if not zipfile.is_zipfile(path):
        raise damaged(path, "is no npz file")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if missing:
                raise damaged(path, f"has no array {missing[0]!r}, only {sorted(archive)}")
            return tuple(archive[name] for name in names)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, DataFormatError):
            raise
        raise damaged(path, str(error)) from error


def _folders() -> list[Path]:
    """The folders to look in, the user's own first."""
    named = os.environ.get(VARIABLE)
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataNotFoundError(
            f"{VARIABLE} = {named!r} is no folder: set it to the folder of data files, or unset it"
        )
    return [folder, cache_folder()]


def _looked_for(name: str) -> str:
    where = " and ".join(str(folder) for folder in _folders())
    return (
        f"data file {name!r} was looked for in {where}: put it there, or set {VARIABLE} to the "
        "folder that holds it"
    )


def _download(name: str, home: Home) -> Path:
    target = cache_folder() / name
    logging.getLogger(__name__).info("downloading %s from %s", name, home.url)
    try:
        with _quiet_pooch():
            pooch.retrieve(home.url, home.checksum, fname=target.name, path=target.parent)
    except OSError as error:  # every network error of requests is one
        reason = f"{home.url} cannot be reached ({type(error).__name__})"
        raise DataNotFoundError(f"{_looked_for(name)}; {reason}") from error
    except ValueError as error:  # pooch on a wrong checksum
        reason = f"{home.url} sends a file whose checksum is not {home.checksum}"
        raise DataNotFoundError(f"{_looked_for(name)}; {reason}") from error
    return target


@contextmanager
def _quiet_pooch() -> Generator[None]:
    """Silences what pooch writes to stderr; our own log record says the same."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
