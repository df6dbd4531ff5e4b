"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people.

B. Lake, R. Salakhutdinov, J. Tenenbaum, "Human-level concept learning through probabilistic
program induction", Science 350, 2015; MIT licence. Drawings are reduced from 105 x 105 to 28 x 28
bits: a cell is ink if at least three tenths of the pixels with their centre in it are. The reduced
data set is read from ``omniglot_28x28_bits.npz`` if that is there, else made from the two
published archives.
"""

import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32
from PIL import Image

from rfho.datasets.base import Home, find, locate, read_arrays
from rfho.errors import DataFormatError

_HOME = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
_MD5 = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
_DRAWERS = 20


class Omniglot(NamedTuple):
    """Characters of many alphabets.

    Attributes:
        images: ``(characters, 20, 28, 28)``, 1 is ink; drawing j is by the j-th drawer.
        alphabet: ``(characters,)``, index into ``alphabet_names``.
        character: ``(characters,)``, the number of the character in its alphabet, from 1.
        evaluation: ``(characters,)``, whether the alphabet is of the evaluation set (20 alphabets,
            659 characters) rather than the background set (30 alphabets, 964 characters).
        alphabet_names: those of the background set first.
    """

    images: Float32[np.ndarray, "characters 20 28 28"]
    alphabet: Int32[np.ndarray, " characters"]
    character: Int32[np.ndarray, " characters"]
    evaluation: Bool[np.ndarray, " characters"]
    alphabet_names: tuple[str, ...]


def load_omniglot() -> Omniglot:
    """All 32,460 drawings.

    Raises:
        DataNotFoundError: neither the reduced file nor the archives are in a folder, and the
            archives (14 MB) cannot be downloaded.
        DataFormatError: a file is damaged.

    Example:
        >>> from rfho.datasets import load_omniglot
        >>> omniglot = load_omniglot()  # doctest: +SKIP
    """
    path = find("omniglot_28x28_bits.npz")
    if path is not None:
        return read_bits(path)
    background, evaluation = (
        locate(f"omniglot/{name}", home=Home(f"{_HOME}/{name}", f"md5:{md5}"))
        for name, md5 in _MD5.items()
    )
    return read_archives(background, evaluation)


def read_bits(path: Path) -> Omniglot:
    """The reduced data set, eight pixels to a byte.

    Raises:
        DataFormatError: an array is missing or of another shape.
    """
    names = ("images", "alphabet", "character", "evaluation", "alphabet_names")
    packed, alphabet, character, evaluation, alphabet_names = read_arrays(path, *names)
    count = len(alphabet)
    shapes = (packed.shape, character.shape, evaluation.shape)
    expected = ((count, _DRAWERS, 98), (count,), (count,))
    if shapes != expected:
        raise DataFormatError(
            f"{path}: images, character and evaluation have the shapes {shapes}, not {expected}"
        )
    return Omniglot(
        np.unpackbits(packed, axis=2).reshape(count, _DRAWERS, 28, 28).astype(np.float32),
        alphabet.astype(np.int32),
        character.astype(np.int32),
        evaluation.astype(np.bool_),
        tuple(str(name) for name in alphabet_names),
    )


def read_archives(background: Path, evaluation: Path) -> Omniglot:
    """The reduced data set made from the published archives of PNG files.

    Raises:
        DataFormatError: an archive is damaged, or a character has not 20 drawings.
    """
    images, alphabet, character, from_evaluation = [], [], [], []
    alphabet_names: list[str] = []
    for path in (background, evaluation):
        for (name, number), drawings in _characters(path).items():
            if name not in alphabet_names:
                alphabet_names.append(name)
            images.append(drawings)
            alphabet.append(alphabet_names.index(name))
            character.append(number)
            from_evaluation.append(path == evaluation)
    return Omniglot(
        np.stack(images).astype(np.float32),
        np.array(alphabet, dtype=np.int32),
        np.array(character, dtype=np.int32),
        np.array(from_evaluation),
        tuple(alphabet_names),
    )


def reduce_drawing(drawing: Image.Image) -> Bool[np.ndarray, "28 28"]:
    """Ink where the mean over a cell's pixels is at least 0.3; black is ink in a drawing."""
    ink = Image.eval(drawing.convert("L"), lambda value: 255 - value)
    return np.asarray(ink.resize((28, 28), Image.Resampling.BOX)) >= 0.3 * 255


def _characters(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """(alphabet, number) -> (20, 28, 28) bits, of ``…/ALPHABET/characterNN/XXXX_DD.png``."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(file for file in archive.namelist() if file.endswith(".png")):
                _, alphabet, character, _ = name.rsplit("/", 3)
                bits = reduce_drawing(Image.open(io.BytesIO(archive.read(name))))
                key = (alphabet, int(character.removeprefix("character")))
                found.setdefault(key, []).append(bits)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise DataFormatError(f"{path} is damaged ({error}): replace it by a fresh copy") from error
    for (alphabet, number), drawings in found.items():
        if len(drawings) != _DRAWERS:
            raise DataFormatError(
                f"{path}: character {number} of {alphabet} has {len(drawings)} drawings, not "
                f"{_DRAWERS}"
            )
    return {key: np.stack(drawings) for key, drawings in found.items()}
