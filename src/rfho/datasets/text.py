"""Tiny Shakespeare: 1.1 MB of English text, character by character.

The text is in the public domain; the file is ``data/tinyshakespeare/input.txt`` of A. Karpathy's
char-rnn.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from rfho.datasets.files import Home, locate
from rfho.errors import DataFormatError
from rfho.files import read_bytes

_MOST = 2**26

_HOME = Home(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


class Text(NamedTuple):
    """A text as numbers.

    Attributes:
        codes: ``(length,)``, character ``i`` of the text is ``alphabet[codes[i]]``.
        alphabet: the different characters, sorted.
    """

    codes: Int32[np.ndarray, " length"]
    alphabet: str


def load_tiny_shakespeare() -> Text:
    """The whole text: 1,115,394 characters, 65 different.

    Raises:
        DataNotFoundError: ``tinyshakespeare.txt`` is in no folder and cannot be downloaded.
        DataFormatError: it is another text, or not ASCII text.

    Example:
        >>> from rfho.datasets import load_tiny_shakespeare
        >>> text = load_tiny_shakespeare()  # doctest: +SKIP
    """
    return read_text(locate("tinyshakespeare.txt", home=_HOME))


def read_text(path: Path) -> Text:
    """The characters of a file of ASCII text.

    Raises:
        DataFormatError: it is not that, or larger than 64 MiB.
    """
    try:
        return encode(read_bytes(path, _MOST).decode("ascii"))
    except UnicodeDecodeError as error:
        raise DataFormatError(f"{path} is not ASCII text ({error}): replace it") from error


def encode(text: str) -> Text:
    """Numbers the characters of a text in sorted order.

    Example:
        >>> encode("abba").codes
        array([0, 1, 1, 0], dtype=int32)
    """
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    alphabet, codes = np.unique(points, return_inverse=True)
    return Text(codes.astype(np.int32), "".join(chr(point) for point in alphabet))


def decode(text: Text) -> str:
    """The characters again; ``decode(encode(s)) == s``."""
    return "".join(text.alphabet[code] for code in text.codes)
