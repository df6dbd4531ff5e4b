"""Documents to train on, of which some are spoilt, and clean ones to judge by.

A document is a piece of a real text. Each kind of `KINDS` but the first spoils it in a way of its own.
"""

import ast
import functools
import importlib.metadata
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from rfho.datasets import load_tiny_shakespeare
from rfho.datasets.text import Text, encode
from rfho.runs.settings import SettingsError, one_of

TEXTS = one_of("packages", "tiny-shakespeare")
"""The check of a setting that names the text."""

KINDS = ("clean", "shuffled letters", "shuffled words", "other language", "boilerplate")
"""As it is; the characters of a document in random order; its words in random order; every letter replaced by
another one, always the same; one of a few notices, again and again."""

_LICENSED = (
    *("equinox", "jax", "jaxlib", "matplotlib", "numpy", "optax", "pillow", "rich"),
    *("scikit-learn", "scipy"),
)
_NOTICES, _LENGTH_OF_NOTICE = 3, 40
_MOST_FILES = 60

Codes = Int32[np.ndarray, "n length"]


class Documents(NamedTuple):
    """Documents of one length, their characters as numbers.

    Attributes:
        train: of all kinds.
        kinds: of each, an index into `KINDS`.
        valid: clean; by these documents are chosen.
        test: clean; by these models are judged.
        alphabet: the characters.
    """

    train: Codes
    kinds: Int64[np.ndarray, " n"]
    valid: Codes
    test: Codes
    alphabet: str


def load_documents(
    name: str, length: int, *, count: int, held_out: int, spoilt: float, seed: int
) -> Documents:
    """Cuts a text into documents of ``length`` characters, draws some, and spoils a part of them.

    Args:
        name: of the text, see `TEXTS`.
        length: of a document.
        count: documents to train on.
        held_out: as many to choose by, and as many for the test.
        spoilt: part of the former that is spoilt, in equal shares by each kind.
        seed: of the draw.

    Raises:
        SettingsError: the text is too short, or no document would be clean.
        DataNotFoundError, DataFormatError: its file is missing or damaged.
    """
    text = load_tiny_shakespeare() if name == "tiny-shakespeare" else of_packages()
    whole = len(text.codes) // length
    if count + 2 * held_out > whole:
        raise SettingsError(
            f"documents = {count}, held_out = {held_out}: {name} has {whole} documents of {length} characters, "
            "but training, choice and test need documents + 2 held_out: lower one of them"
        )
    generator = np.random.default_rng(seed)
    pieces = generator.permutation(text.codes[: whole * length].reshape(whole, length))
    valid, test, train = np.split(pieces[: count + 2 * held_out], [held_out, 2 * held_out])
    kinds = np.zeros(count, np.int64)
    ways = len(KINDS) - 1
    number = round(spoilt * count / ways)
    if ways * number >= count:
        raise SettingsError(
            f"documents = {count}, spoilt = {spoilt}: none is clean; change one of them"
        )
    kinds[: ways * number] = np.repeat(1 + np.arange(ways), number)
    for kind, spoil in enumerate((letters, words, language, boilerplate) if number else (), 1):
        rows = kinds == kind
        train[rows] = spoil(train[rows], text.alphabet, generator)
    return Documents(train, kinds, valid, test, text.alphabet)


def letters(clean: Codes, alphabet: str, generator: np.random.Generator) -> Codes:
    """The characters of each document in random order."""
    return generator.permuted(clean, axis=1)


def words(clean: Codes, alphabet: str, generator: np.random.Generator) -> Codes:
    """The words of each document in random order, between spaces and lines as they were."""

    def one(codes: np.ndarray) -> np.ndarray:
        blank = np.isin(codes, [alphabet.find(" "), alphabet.find("\n")])
        runs = np.split(codes, np.flatnonzero(np.diff(blank)) + 1)
        places = np.arange(int(blank[0]), len(runs), 2)
        order = np.arange(len(runs))
        order[places] = generator.permutation(places)
        return np.concatenate([runs[i] for i in order])

    return np.array([one(codes) for codes in clean], np.int32).reshape(clean.shape)


def language(clean: Codes, alphabet: str, generator: np.random.Generator) -> Codes:
    """Every letter is another one, the same in all documents; all else is as it was."""
    table = np.arange(len(alphabet), dtype=np.int32)
    for of_case in (str.islower, str.isupper):
        numbers = np.array([i for i, letter in enumerate(alphabet) if of_case(letter)], np.int64)
        order = generator.permutation(numbers)
        table[order] = np.roll(order, 1)  # one circle: none stays where it is
    return table[clean]


def boilerplate(clean: Codes, alphabet: str, generator: np.random.Generator) -> Codes:
    """One of three notices over and over, from anywhere in it; the notices are pieces of the text."""
    notices = clean[generator.integers(len(clean), size=_NOTICES)][:, :_LENGTH_OF_NOTICE]
    which = generator.integers(_NOTICES, size=len(clean))
    start = generator.integers(notices.shape[1], size=(len(clean), 1))
    places = (start + np.arange(clean.shape[1])) % notices.shape[1]
    return notices[which[:, None], places]


@functools.cache
def of_packages() -> Text:
    """Three texts of one length, one after the other: sources, documentation, licences of installed packages.

    No line stands in one of them twice, so that what is judged by was not trained on.
    """
    documented = itertools.islice(_files(("scipy",), _is_source), _MOST_FILES)
    parts = [
        _distinct(_files(("equinox", "optax"), _is_source)),
        _distinct(map(_docstrings, documented)),
        _distinct(_files(_LICENSED, _is_licence)),
    ]
    length = min(len(part) for part in parts)
    return encode("".join(part[:length] for part in parts))


def _files(packages: tuple[str, ...], taken: Callable[[str], bool]) -> Iterator[str]:
    """The contents of files of installed packages."""
    for package in packages:
        for file in sorted(importlib.metadata.files(package) or [], key=str):
            if taken(str(file)):
                yield file.read_text(encoding="utf-8")


def _distinct(files: Iterator[str]) -> str:
    """All lines of printable characters, each where it first stands."""
    lines = dict.fromkeys(line.rstrip() for file in files for line in file.splitlines())
    return "\n".join(line for line in lines if line.isascii() and line.isprintable())


def _is_source(name: str) -> bool:
    return name.endswith(".py") and "/tests/" not in name and name.count("/") == 2


def _is_licence(name: str) -> bool:
    return ".dist-info/" in name and "LICEN" in name.upper()


def _docstrings(source: str) -> str:
    """All that a source says about itself."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)
