"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people.

B. Lake, R. Salakhutdinov, J. Tenenbaum, "Human-level concept learning through probabilistic
program induction", Science 350, 2015; MIT licence. Drawings are reduced from 105 x 105 to 28 x 28
bits: a cell is ink if at least three tenths of the pixels with their centre in it are. The reduced
data set is read from ``omniglot_28x28_bits.npz`` if that is there, else made from the two
published archives.
"""

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32
from PIL import Image

from rfho.datasets.files import Home, find, locate
from rfho.files import Array, damaged, parsing, read_arrays, zipped

_HOME = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
_MD5 = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
_DRAWERS = 20
_SIDE = 105
_MOST_IN_A_DRAWING = 2**16
_CHARACTERS = 10_000
_PNG = b"\x89PNG\r\n\x1a\n" + bytes([0, 0, 0, 13]) + b"IHDR"
_NAME = re.compile(r"(?P<alphabet>[^/]+)/character(?P<number>[0-9]{1,4})/[^/]+\.png$")


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
        DataFormatError: an array is missing, is of another shape or type, or names an alphabet that
            is not there.
    """
    packed, alphabet, character, evaluation, alphabet_names = read_arrays(
        path,
        Array("images", (np.uint8,), ("characters", _DRAWERS, 98)),
        Array("alphabet", (np.integer,), ("characters",), lowest=0, below="alphabets"),
        Array("character", (np.integer,), ("characters",), lowest=1, below=_CHARACTERS),
        Array("evaluation", (np.bool_,), ("characters",)),
        Array("alphabet_names", (np.str_,), ("alphabets",)),
    )
    count = len(alphabet)
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
    with zipped(path, most=_MOST_IN_A_DRAWING) as archive:
        for name in sorted(file for file in archive.members if file.endswith(".png")):
            match = _NAME.search(name)
            if match is None:
                raise damaged(path, f"has a drawing {name!r}, not ALPHABET/characterNN/XXXX_DD.png")
            key = (match["alphabet"], int(match["number"]))
            with archive.opened(name) as stream:
                found.setdefault(key, []).append(
                    _read_drawing(path, name, stream.read(archive.size(name)))
                )
    if not found:
        raise damaged(path, "has no drawings in it")
    for (alphabet, number), drawings in found.items():
        if len(drawings) != _DRAWERS:
            raise damaged(
                path,
                f"has {len(drawings)} drawings of character {number} of {alphabet}, not {_DRAWERS}",
            )
    return {key: np.stack(drawings) for key, drawings in found.items()}


def _read_drawing(path: Path, name: str, content: bytes) -> Bool[np.ndarray, "28 28"]:
    """The bits of one PNG file; its size is looked at before its pixels are unpacked."""
    width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    if content[:16] != _PNG or (width, height) != (_SIDE, _SIDE):
        raise damaged(
            path, f"has a drawing {name!r} that is no PNG file of {_SIDE} x {_SIDE} pixels"
        )
    with parsing(path), Image.open(io.BytesIO(content), formats=["PNG"]) as drawing:
        return reduce_drawing(drawing)
