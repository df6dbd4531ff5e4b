"""Which documents to train on: how often each, by a derivative or by a simpler score."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_BUCKETS, _GRAMS, _PRIOR = 4096, (3, 4), 1000
_PRIME, _LARGE = 257, 2**31 - 1

Counts = Int[np.ndarray, " n"]
"""How often each document stands in what is trained on."""


class Rule(NamedTuple):
    """Which documents a step of metagradient descent moves.

    Attributes:
        starts: R, runs that a derivative is the mean of, each from a start and in an order of its own.
        share: of the documents, those of the largest mean by size, that may move.
        trust: of those, what moves has a mean of more than so many errors.
    """

    starts: int
    share: float
    trust: float


def moved(counts: Counts, derivatives: Float[np.ndarray, "R n"], rule: Rule) -> Counts:
    r"""One step of metagradient descent: counts go by one against a sign that is sure, down to 0.

    .. math:: \bar g_i = \frac1R \sum_r g_i^r, \qquad s_i^2 = \frac1{R (R - 1)} \sum_r (g_i^r - \bar g_i)^2, \qquad
              c_i \leftarrow \max(0, c_i - \mathrm{sign}\, \bar g_i) \;\text{ where }\; |\bar g_i| > \tau s_i

    A step that would leave nothing is not taken.

    Args:
        counts: as they were; a document that was dropped has the derivative 0, and stays away.
        derivatives: of the held-out loss by the weight of each document, run by run.
        rule: what moves; with one run nothing is known of errors.

    Example:
        >>> derivatives = np.array([[3.0, -2.0, 0.1, 1.0], [1.0, -3.0, -0.3, 1.0]])
        >>> moved(np.array([1, 1, 1, 2]), derivatives, Rule(starts=2, share=1.0, trust=1.0))
        array([0, 2, 1, 1])
    """
    runs, mean = len(derivatives), derivatives.mean(axis=0)
    error = derivatives.std(axis=0, ddof=1) / np.sqrt(runs) if runs > 1 else 0.0
    sure = np.abs(mean) > rule.trust * error
    largest = np.argsort(-np.abs(mean), kind="stable")[: round(rule.share * len(counts))]
    moving = largest[sure[largest]]
    after = counts.copy()
    after[moving] -= np.sign(mean[moving]).astype(counts.dtype)
    after = np.maximum(after, 0)
    return after if after.any() else counts


def lowest(scores: Float[np.ndarray, " n"], kept: int) -> Counts:
    """Once each of the ``kept`` documents of the lowest score."""
    counts = np.zeros(len(scores), np.int64)
    counts[np.argsort(scores, kind="stable")[:kept]] = 1
    return counts


def order(
    counts: Counts, rows: int, size: int, generator: np.random.Generator
) -> Int[np.ndarray, "rows size"]:
    """Numbers of documents for so many batches: epoch after epoch, each in an order of its own."""
    text = np.repeat(np.arange(len(counts)), counts)
    epochs = -(-rows * size // len(text))
    drawn = np.concatenate([generator.permutation(text) for _ in range(epochs)])
    return drawn[: rows * size].reshape(rows, size).astype(np.int32)


def unlikeness(
    documents: Int[np.ndarray, "n length"], target: Int[np.ndarray, "m length"]
) -> Float[np.ndarray, " n"]:
    """How little each document is like the target: minus its importance weight in the logarithm.

    Of bags of hashed n-grams (Xie et al., "Data selection for language models via importance resampling",
    arXiv 2302.03169), here of characters.
    """
    own, theirs = _grams(documents), _grams(target).sum(axis=0)
    frequency = own.sum(axis=0) / own.sum()
    # The target is short: its frequencies are drawn towards those of all documents, as if it had _PRIOR more.
    ratio = theirs / np.where(frequency > 0, frequency, 1) + _PRIOR
    return -(own @ np.log(ratio / (theirs.sum() + _PRIOR)))


def _grams(documents: Int[np.ndarray, "n length"]) -> Float[np.ndarray, "n buckets"]:
    """How often each document has an n-gram of each bucket."""
    bags = np.zeros((len(documents), _BUCKETS))
    rows = np.arange(len(documents))[:, None]
    for length in _GRAMS:
        windows = np.lib.stride_tricks.sliding_window_view(documents.astype(np.int64), length, 1)
        hashed = windows @ (_PRIME ** np.arange(1, length + 1)) % _LARGE % _BUCKETS
        np.add.at(bags, (np.broadcast_to(rows, hashed.shape), hashed), 1)
    return bags
