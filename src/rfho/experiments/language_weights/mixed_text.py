"""Text from several sources: one of them clean, the others spoilt in their own ways.

Every source has a part of the text to itself, cut into windows of equal length; two more parts, always
clean, are for validation and for the test.
"""

from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from rfho.datasets import Text, load_tiny_shakespeare
from rfho.datasets.text import encode
from rfho.runs.settings import SettingsError, one_of

TEXTS = one_of("descriptions", "tiny-shakespeare")
"""The check of a setting that names the text."""

SOURCES = ("clean", "half replaced", "shuffled", "random letters")
"""Text as it is; half of the characters replaced by random ones; characters of a window in random
order; nothing but random characters."""


class MixedText(NamedTuple):
    """Windows of characters, as numbers: for training of each of `SOURCES`, else clean."""

    train: Int32[np.ndarray, "n sources length"]
    valid: Int32[np.ndarray, "n_valid length"]
    test: Int32[np.ndarray, "n_test length"]
    alphabet: str


def load_mixed_text(name: str, length: int, *, held_out: int, seed: int) -> MixedText:
    """Cuts a text into windows of a length, and spoils those of all sources but the first.

    As many windows as are ``held_out`` to validate by are for the test.

    Raises:
        SettingsError: the text is too short.
        DataNotFoundError, DataFormatError: its file is missing or damaged.
    """
    text = load_tiny_shakespeare() if name == "tiny-shakespeare" else descriptions()
    generator = np.random.default_rng(seed)
    count = len(text.codes) // length
    windows = generator.permutation(text.codes[: count * length].reshape(count, length))
    each = (count - 2 * held_out) // len(SOURCES)
    if each < 2:
        raise SettingsError(
            f"context = {length - 1}, valid = {held_out}: {name} has {count} windows of this length; "
            "lower one of them"
        )
    valid, test, rest = np.split(windows, [held_out, 2 * held_out])
    parts = rest[: each * len(SOURCES)].reshape(len(SOURCES), each, length)
    return MixedText(spoil(parts, len(text.alphabet), generator), valid, test, text.alphabet)


def spoil(
    parts: Int32[np.ndarray, "sources n length"], letters: int, generator: np.random.Generator
) -> Int32[np.ndarray, "n sources length"]:
    """What the sources of `SOURCES` make of one part each of a clean text."""
    clean, half, ordered, _ = parts
    noise = generator.integers(0, letters, parts.shape[1:], dtype=np.int32)
    replaced = np.where(generator.random(half.shape) < 0.5, noise, half)
    shuffled = generator.permuted(ordered, axis=1)
    random = generator.integers(0, letters, half.shape, dtype=np.int32)
    return np.stack([clean, replaced, shuffled, random], axis=1)


def descriptions() -> Text:
    """Scikit-learn's descriptions of its data sets: 40 kB of English in small letters."""
    files = sorted(resources.files("sklearn.datasets.descr").iterdir(), key=lambda file: file.name)
    texts = [file.read_text(encoding="utf-8") for file in files if file.name.endswith(".rst")]
    plain = " ".join(" ".join(texts).lower().split())
    return encode("".join(character for character in plain if character.isascii()))
