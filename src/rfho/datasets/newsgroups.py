"""20 newsgroups, version "bydate": word counts of 11,314 + 7,532 messages of 1993.

Collected by K. Lang. Counts are those of scikit-learn's ``CountVectorizer`` with its default
settings, fitted on the training messages with their headers: 130,107 words. They are read from
``news20_counts_train.npz``, ``news20_counts_test.npz`` and ``news20_labels.npz`` if these are
there, else counted in the archive of messages that scikit-learn publishes.
"""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as splinalg
from jaxtyping import Int32
from sklearn.feature_extraction.text import CountVectorizer

from rfho.datasets.files import Home, find, locate
from rfho.errors import DataFormatError
from rfho.files import Array, damaged, parsing, read_arrays, tar_members

_UNPACKED, _MOST_WORDS = 2**28, 2**24
_ARCHIVE = "20news-bydate.tar.gz"
_HOME = Home(
    "https://ndownloader.figshare.com/files/5975967",
    "sha256:8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
)


class Newsgroups(NamedTuple):
    """Word counts and groups; the columns are the words in alphabetical order.

    Attributes:
        train_counts: ``(11314, 130107)``, a CSR array of int16.
        train_labels: ``(11314,)``, label k is the group ``group_names[k]``.
        test_counts: ``(7532, 130107)``.
        test_labels: ``(7532,)``.
        group_names: the 20 groups.
    """

    train_counts: sp.csr_array
    train_labels: Int32[np.ndarray, " n"]
    test_counts: sp.csr_array
    test_labels: Int32[np.ndarray, " m"]
    group_names: tuple[str, ...]


class TfIdf(NamedTuple):
    """Weighted counts, CSR arrays of float64 whose rows have unit length."""

    train: sp.csr_array
    test: sp.csr_array


def load_newsgroups() -> Newsgroups:
    """Counts and labels of both parts.

    Raises:
        DataNotFoundError: neither the counts nor the archive of messages are in a folder, and the
            archive (14 MB) cannot be downloaded.
        DataFormatError: a file is damaged, or counts and labels disagree.

    Example:
        >>> from rfho.datasets import load_newsgroups
        >>> newsgroups = load_newsgroups()  # doctest: +SKIP
    """
    train, test = find("news20_counts_train.npz"), find("news20_counts_test.npz")
    labels = find("news20_labels.npz")
    if train is None or test is None or labels is None:
        return count_words(locate(_ARCHIVE, home=_HOME))
    train_labels, test_labels, group_names = read_arrays(
        labels,
        Array("y_train", (np.integer,), ("train",), lowest=0, below="groups"),
        Array("y_test", (np.integer,), ("test",), lowest=0, below="groups"),
        Array("group_names", (np.str_,), ("groups",)),
    )
    return _checked(
        _read_counts(train),
        train_labels,
        test_counts=_read_counts(test),
        test_labels=test_labels,
        group_names=[str(name) for name in group_names],
    )


def tf_idf(train_counts: sp.csr_array, test_counts: sp.csr_array) -> TfIdf:
    """Term frequency times inverse document frequency, rows scaled to unit length.

    With n training documents of which df_j contain word j, the weight of a count is
    ln((1 + n) / (1 + df_j)) + 1; the test part is weighted by the same numbers. A document without
    any word stays zero. Counts hold no explicit zeros.

    Example:
        >>> counts = sp.csr_array(np.array([[1, 1], [0, 2]]))
        >>> tf_idf(counts, counts).train.toarray()[1]
        array([0., 1.])
    """
    documents, words = _shape(train_counts)
    containing = np.bincount(train_counts.indices, minlength=words)
    weights = np.log((1 + documents) / (1 + containing)) + 1
    return TfIdf(_weighted(train_counts, weights), _weighted(test_counts, weights))


def count_words(archive: Path) -> Newsgroups:
    """Counts the words of the messages in the published archive; takes about ten seconds.

    Messages are decoded as latin-1 and sorted by group, then by file name.

    Raises:
        DataFormatError: the archive is damaged or holds no messages.
    """
    train_texts, train_groups = _messages(archive, "20news-bydate-train")
    test_texts, test_groups = _messages(archive, "20news-bydate-test")
    names = sorted(set(train_groups))
    strange = sorted(set(test_groups) - set(names))
    if strange:
        raise damaged(archive, f"has test messages of {strange[0]}, but no training messages")
    vectorizer = CountVectorizer()
    with parsing(archive):  # which has no word in it, say
        train_counts = _counted(vectorizer.fit_transform(train_texts))
        test_counts = _counted(vectorizer.transform(test_texts))
    return _checked(
        train_counts,
        np.array([names.index(group) for group in train_groups]),
        test_counts=test_counts,
        test_labels=np.array([names.index(group) for group in test_groups]),
        group_names=names,
    )


def _weighted(counts: sp.csr_array, weights: np.ndarray) -> sp.csr_array:
    weighted = counts.astype(np.float64) @ sp.diags_array(weights)
    lengths = splinalg.norm(weighted, axis=1)
    return sp.csr_array(sp.diags_array(1 / np.where(lengths > 0, lengths, 1.0)) @ weighted)


def _counted(matrix: Any) -> sp.csr_array:
    counts = sp.csr_array(matrix)
    if counts.data.max(initial=0) >= 2**15:
        raise ValueError("a message says one word more than 32767 times")
    return cast("sp.csr_array", counts.astype(np.int16))


def _shape(counts: sp.csr_array) -> tuple[int, int]:
    rows, columns = cast("tuple[int, int]", counts.shape)
    return int(rows), int(columns)


def _read_counts(path: Path) -> sp.csr_array:
    """A matrix as `scipy.sparse.save_npz` writes it; every index is looked at, and no count is zero."""
    form, shape, data, indices, starts = read_arrays(
        path,
        Array("format", (np.bytes_,), ()),
        Array("shape", (np.integer,), (2,), lowest=1, below=_MOST_WORDS),
        Array("data", (np.integer,), ("entries",), lowest=1, below=2**15),
        Array("indices", (np.integer,), ("entries",), lowest=0, below=_MOST_WORDS),
        Array("indptr", (np.integer,), ("rows_and_one",), lowest=0, below=2**31),
    )
    rows, words = map(int, shape)
    if form.item() != b"csr":
        raise damaged(path, f"holds a matrix in the format {form.item()!r}, not b'csr'")
    rises = len(starts) == rows + 1 and starts[0] == 0 and starts[-1] == len(data)
    if not rises or np.any(starts[1:] < starts[:-1]) or indices.max(initial=0) >= words:
        raise damaged(path, f"holds no matrix of {rows} rows and {words} columns")
    whole = (data.astype(np.int16), indices.astype(np.int32), starts.astype(np.int32))
    counts = sp.csr_array(whole, shape=(rows, words))
    if not counts.has_canonical_format:
        raise damaged(path, "names a word of a message twice, or not in the order of the words")
    return counts


def _messages(path: Path, part: str) -> tuple[list[str], list[str]]:
    """Texts and groups of the members ``part/GROUP/NUMBER``."""

    def is_message(name: str) -> bool:
        return name.startswith(f"{part}/") and name.count("/") == 2

    files = tar_members(path, is_message, most=_UNPACKED)
    if not files:
        raise DataFormatError(f"{path} holds no messages of {part}: it is another archive")
    keys = sorted(files, key=lambda name: tuple(name.split("/")))
    return [files[key].decode("latin-1") for key in keys], [key.split("/")[1] for key in keys]


def _checked(
    train_counts: sp.csr_array,
    train_labels: np.ndarray,
    *,
    test_counts: sp.csr_array,
    test_labels: np.ndarray,
    group_names: list[str],
) -> Newsgroups:
    shapes = (_shape(train_counts), _shape(test_counts))
    words = shapes[0][1]
    if shapes != ((len(train_labels), words), (len(test_labels), words)):
        raise DataFormatError(
            f"20 newsgroups: counts of the shapes {shapes} do not belong to {len(train_labels)} "
            f"training and {len(test_labels)} test labels: replace the files by fresh copies"
        )
    return Newsgroups(
        train_counts,
        train_labels.astype(np.int32),
        test_counts,
        test_labels.astype(np.int32),
        tuple(group_names),
    )
