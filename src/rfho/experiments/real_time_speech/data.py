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
    """Frames with their windows; n frames.

    Attributes:
        windows: ``(n, features)``.
        primary: ``(n,)``, the label that is to be recognised.
        secondary: ``(n,)``, the secondary label.
    """

    windows: Float32[Array, "n features"]
    primary: Int32[Array, " n"]
    secondary: Int32[Array, " n"]


class FrameSplit(NamedTuple):
    """Training, validation and test frames, of different recordings.

    Attributes:
        train, valid, test: the parts.
        classes: how many primary labels there are.
        kinds: how many secondary labels.
    """

    train: Frames
    valid: Frames
    test: Frames
    classes: int
    kinds: int


class _Recordings(NamedTuple):
    """All frames with their labels, one recording after the other; the part is per recording."""

    frames: np.ndarray
    offsets: np.ndarray
    primary: np.ndarray
    secondary: np.ndarray
    classes: int
    test: Bool[np.ndarray, " recordings"]
    valid: Bool[np.ndarray, " recordings"]


def load_frame_split(name: str, *, radius: int, seed: int) -> FrameSplit:
    """The recordings of a name in three parts.

    Args:
        name: one of `FRAME_SETS`.
        radius: frames to each side that a window holds.
        seed: decides which recordings validate.

    Raises:
        DataNotFoundError, DataFormatError: the file of frames is missing or damaged.

    Example:
        >>> split = load_frame_split("digit-rows", radius=1, seed=0)
        >>> split.train.windows.shape[1], split.classes, split.kinds
        (24, 10, 8)
    """
    rng = np.random.default_rng(seed)
    recordings = _recordings(name, rng)
    test, valid = (frame_values(recordings.offsets, part) for part in recordings[-2:])
    frames = recordings.frames.astype(np.float32)
    windows = context_windows(frames, recordings.offsets, radius=radius)
    primary = recordings.primary.astype(np.int32)
    secondary = recordings.secondary.astype(np.int32)
    masks = ~(test | valid), valid, test
    columns = windows, primary, secondary
    parts = [Frames(*(jnp.asarray(column[mask]) for column in columns)) for mask in masks]
    return FrameSplit(*parts, classes=recordings.classes, kinds=int(secondary.max()) + 1)


def _recordings(name: str, rng: np.random.Generator) -> _Recordings:
    match name:
        case "spoken-digits":
            return _spoken_digits(rng)
        case "timit":
            return _timit(rng)
        case _:
            return _digit_rows(rng)


def _spoken_digits(rng: np.random.Generator) -> _Recordings:
    spoken = load_spoken_digits()
    takes = np.unique(spoken.take[~spoken.test])
    chosen = rng.permutation(takes)[: round(VALID_SHARE * len(takes))]
    return _Recordings(
        _cepstra(spoken.frames, frame_values(spoken.offsets, ~spoken.test)),
        spoken.offsets,
        frame_values(spoken.offsets, spoken.digit),
        frame_values(spoken.offsets, spoken.speaker),
        DIGITS,
        spoken.test,
        ~spoken.test & np.isin(spoken.take, chosen),
    )


def _timit(rng: np.random.Generator) -> _Recordings:
    timit = load_timit()
    speakers = np.unique(timit.speaker[~timit.test])
    chosen = rng.permutation(speakers)[: round(VALID_SHARE * len(speakers))]
    return _Recordings(
        _cepstra(timit.frames, frame_values(timit.offsets, ~timit.test)),
        timit.offsets,
        THIRDS * timit.phone + timit.third,
        timit.following,
        THIRDS * len(PHONES),
        timit.test,
        ~timit.test & np.isin(timit.speaker, chosen),
    )


def _cepstra(log_mel: np.ndarray, seen: Bool[np.ndarray, " n"]) -> np.ndarray:
    """Cepstral coefficients; mean and deviation are those of the frames that may be seen."""
    cepstra = np.asarray(dct(log_mel, norm="ortho"))[:, :COEFFICIENTS]
    known = cepstra[seen]
    return DEVIATION * (cepstra - known.mean(axis=0)) / known.std(axis=0)


def _digit_rows(rng: np.random.Generator) -> _Recordings:
    pictures = load_digits()
    count, height, width = pictures.images.shape[:3]
    # The test set is the same for every seed, as that of the spoken digits is.
    test = np.arange(count) >= round((1 - TEST_SHARE) * count)
    valid = ~test & (rng.random(count) < VALID_SHARE)
    pixels = pictures.images.reshape(count * height, width)
    return _Recordings(
        (pixels - pixels.mean()) / pixels.std(),
        np.arange(count + 1) * height,
        np.repeat(pictures.labels, height),
        np.tile(np.arange(height), count),
        DIGITS,
        test,
        valid,
    )
