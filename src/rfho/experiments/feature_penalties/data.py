"""Sparse examples: rows of numbers most of which are zero, multiplied without the zeros.

Inputs are JAX's compressed sparse rows, `BCSR`: a pytree of three arrays that stays in the training
data as it is, has products with dense matrices, and derivatives of both orders by these. On one CPU
core a gradient on half of 20 newsgroups takes about 90 ms and a Hessian-vector product 60 ms; other
formats (`BCOO`, gather and segment sum, padded rows) are about as fast or slower.
"""

from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax import Array
from jax.experimental.sparse import BCSR
from jaxtyping import Bool, Int

from rfho.datasets import load_digits, load_newsgroups, random_split, tf_idf
from rfho.runs.settings import SettingsError, one_of

SparseExamples = tuple[BCSR | Array, Array]
"""Inputs ``(n, features)``, dense ones too, and labels ``(n,)``."""

FEATURE_SETS = one_of("digits", "newsgroups")
"""The check of a setting that names the data."""


class FeatureSplit(NamedTuple):
    """Training, validation and test part of one data set; kinds of features by name, each a mask."""

    train: SparseExamples
    valid: SparseExamples
    test: SparseExamples
    features: int
    classes: int
    groups: dict[str, Bool[np.ndarray, " features"]]


def load_feature_split(
    name: str, sizes: tuple[int, int, int], *, noise: int, words: int, seed: int
) -> FeatureSplit:
    """Three disjoint random parts.

    Args:
        name: one of `FEATURE_SETS`; the test part of 20 newsgroups is the official one, whole.
        sizes: examples in training, validation and test part.
        noise: features without information to be added to digits.
        words: of 20 newsgroups that are kept, the most frequent ones.
        seed: decides which examples, and the noise.

    Raises:
        SettingsError: the data set is too small for these sizes.
        DataNotFoundError, DataFormatError: its files are missing or damaged.
    """
    if name == "newsgroups":
        return _newsgroups(sizes[:2], words=words, seed=seed)
    return _digits(sizes, noise=noise, seed=seed)


def as_sparse(matrix: sp.csr_array) -> BCSR:
    """A SciPy matrix on the device, in float32."""
    matrix = sp.csr_array(matrix, dtype=np.float32)
    matrix.sum_duplicates()
    indices, starts = (jnp.asarray(a, jnp.int32) for a in (matrix.indices, matrix.indptr))
    parts = (jnp.asarray(matrix.data), indices, starts)
    shape = cast("tuple[int, int]", matrix.shape)
    return BCSR(parts, shape=shape, indices_sorted=True, unique_indices=True)


def _digits(sizes: tuple[int, int, int], *, noise: int, seed: int) -> FeatureSplit:
    """Ink of 64 pixels, and ``noise`` columns more: pixels of other, random images."""
    digits = load_digits()
    ink = digits.images.reshape(len(digits.labels), -1)
    generator = np.random.default_rng(seed)
    copied = generator.integers(0, ink.shape[1], noise)
    shuffled = [generator.permutation(ink[:, pixel])[:, None] for pixel in copied]
    inputs = sp.csr_array(np.concatenate([ink, *shuffled], axis=1))
    parts = _parts(len(digits.labels), sizes, seed=seed)
    train, valid, test = (_examples(inputs[part], digits.labels[part]) for part in parts)
    is_noise = np.arange(ink.shape[1] + noise) >= ink.shape[1]
    groups = {"pixels": ~is_noise} | ({"noise": is_noise} if noise else {})
    return FeatureSplit(train, valid, test, len(is_noise), len(digits.class_names), groups)


def _newsgroups(sizes: tuple[int, ...], *, words: int, seed: int) -> FeatureSplit:
    """tf-idf of the most frequent words; they are grouped by the training messages that have them."""
    news = load_newsgroups()
    weighted = tf_idf(news.train_counts, news.test_counts)
    train_rows, valid_rows = _parts(len(news.train_labels), sizes, seed=seed)
    _, all_words = cast("tuple[int, int]", weighted.train.shape)
    seen = np.bincount(weighted.train[train_rows].indices, minlength=all_words)
    kept = np.sort(np.argsort(-seen, kind="stable")[:words])
    known, unknown = weighted.train[:, kept], weighted.test[:, kept]
    train, valid = (
        _examples(known[rows], news.train_labels[rows]) for rows in (train_rows, valid_rows)
    )
    seen = seen[kept]
    groups = {
        "in 1 to 9 messages": (seen >= 1) & (seen < 10),
        "in 10 to 99": (seen >= 10) & (seen < 100),
        "in 100 or more": seen >= 100,
    }
    test = _examples(unknown, news.test_labels)
    return FeatureSplit(train, valid, test, len(kept), len(news.group_names), groups)


def _examples(inputs: sp.csr_array, labels: np.ndarray) -> SparseExamples:
    return as_sparse(inputs), jnp.asarray(labels)


def _parts(count: int, sizes: tuple[int, ...], *, seed: int) -> tuple[Int[np.ndarray, " _"], ...]:
    try:
        return random_split(count, sizes, seed=seed)
    except ValueError as error:
        raise SettingsError(f"{error}: lower train, valid or test") from error
