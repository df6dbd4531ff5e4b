"""Frames of recordings with what lies around them, for classification frame by frame.

A recording is a sequence of frames. Every frame is seen through a window of neighbours, and has two
labels: a primary one, which is to be recognised, and a secondary one, which is known in training only.

- ``spoken-digits``: the free spoken digits, a frame every 10 ms, as the first 13 cepstral
  coefficients (the cosine transform of the log-mel energies, which makes them nearly uncorrelated),
  each of mean zero and variance one. The primary label is the digit, the secondary one the speaker.
  The test set is the documented one (takes 0 to 4); of the other 45 takes ten, drawn at random,
  validate.
- ``timit``: likewise, from a licensed copy. The primary label is the third of a phone, one of 183
  (the states of a forced alignment, which the authors had, need a recogniser); the secondary one is
  the phone that follows. Of the speakers of the training part 23 %, drawn at random, validate.
- ``digit-rows``: comes with scikit-learn. A picture of 8 x 8 pixels is read from top to bottom as a
  recording of eight frames, its rows. The primary label is the digit, the secondary one the number
  of the row. Pixels have mean zero and variance one.

Recordings are split, not frames: neighbouring frames are almost copies of each other.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float32, Int32
from scipy.fft import dct

from rfho.datasets import (
    PHONES,
    context_windows,
    frame_values,
    load_digits,
    load_spoken_digits,
    load_timit,
)
from rfho.runs.settings import one_of

FRAME_SETS = one_of("digit-rows", "spoken-digits", "timit")
"""The check of a setting that names the recordings."""

DIGITS, THIRDS = 10, 3
COEFFICIENTS, DEVIATION = 13, 0.4
VALID_SHARE, TEST_SHARE = 0.23, 0.17


class Frames(NamedTuple):
    """Frames with their windows, the label that is to be recognised, and the secondary one."""

    windows: Float32[Array, "n features"]
    primary: Int32[Array, " n"]
    secondary: Int32[Array, " n"]


class FrameSplit(NamedTuple):
    """Training, validation and test frames, of different recordings; how many labels there are of both."""

    train: Frames
    valid: Frames
    test: Frames
    classes: int
    kinds: int


class _Recordings(NamedTuple):
    """Frames one recording after the other, their labels, and which recordings are for what."""

    frames: np.ndarray
    offsets: np.ndarray
    primary: np.ndarray
    secondary: np.ndarray
    classes: int
    test: Bool[np.ndarray, " recordings"]
    valid: Bool[np.ndarray, " recordings"]


def load_frame_split(name: str, *, radius: int, seed: int) -> FrameSplit:
    """The recordings of a name in three parts, seen through windows of 2 radius + 1 frames.

    Raises:
        DataNotFoundError, DataFormatError: the file of frames is missing or damaged.

    Example:
        >>> split = load_frame_split("digit-rows", radius=1, seed=0)
        >>> split.train.windows.shape[1], split.classes, split.kinds
        (24, 10, 8)
    """
    loaders = {"spoken-digits": _spoken_digits, "timit": _timit, "digit-rows": _digit_rows}
    found = loaders[name](np.random.default_rng(seed))
    test, valid = (frame_values(found.offsets, part) for part in (found.test, found.valid))
    windows = context_windows(found.frames.astype(np.float32), found.offsets, radius=radius)
    labels = (column.astype(np.int32) for column in (found.primary, found.secondary))
    columns = windows, *labels
    parts = [
        Frames(*(jnp.asarray(column[mask]) for column in columns))
        for mask in (~(test | valid), valid, test)
    ]
    return FrameSplit(*parts, classes=found.classes, kinds=int(found.secondary.max()) + 1)


def _spoken_digits(rng: np.random.Generator) -> _Recordings:
    spoken = load_spoken_digits()
    digit, speaker = (frame_values(spoken.offsets, each) for each in (spoken.digit, spoken.speaker))
    cepstra = _cepstra(spoken.frames, frame_values(spoken.offsets, ~spoken.test))
    valid = _drawn(spoken.take, spoken.test, rng)
    return _Recordings(cepstra, spoken.offsets, digit, speaker, DIGITS, spoken.test, valid)


def _timit(rng: np.random.Generator) -> _Recordings:
    timit = load_timit()
    cepstra = _cepstra(timit.frames, frame_values(timit.offsets, ~timit.test))
    thirds, classes = THIRDS * timit.phone + timit.third, THIRDS * len(PHONES)
    valid = _drawn(timit.speaker, timit.test, rng)
    return _Recordings(cepstra, timit.offsets, thirds, timit.following, classes, timit.test, valid)


def _digit_rows(rng: np.random.Generator) -> _Recordings:
    pictures = load_digits()
    count, height, width = pictures.images.shape[:3]
    # The test set is the same for every seed, as that of the spoken digits is.
    test = np.arange(count) >= round((1 - TEST_SHARE) * count)
    valid = ~test & (rng.random(count) < VALID_SHARE)
    pixels = pictures.images.reshape(count * height, width)
    frames, offsets = (pixels - pixels.mean()) / pixels.std(), np.arange(count + 1) * height
    digit, row = np.repeat(pictures.labels, height), np.tile(np.arange(height), count)
    return _Recordings(frames, offsets, digit, row, DIGITS, test, valid)


def _drawn(
    names: np.ndarray, test: Bool[np.ndarray, " n"], rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """The recordings of a random share of the names that do not test."""
    known = np.unique(names[~test])
    return ~test & np.isin(names, rng.permutation(known)[: round(VALID_SHARE * len(known))])


def _cepstra(log_mel: np.ndarray, seen: Bool[np.ndarray, " n"]) -> np.ndarray:
    """Cepstral coefficients; mean and deviation are those of the frames that may be seen."""
    cepstra = np.asarray(dct(log_mel, norm="ortho"))[:, :COEFFICIENTS]
    known = cepstra[seen]
    return DEVIATION * (cepstra - known.mean(axis=0)) / known.std(axis=0)
