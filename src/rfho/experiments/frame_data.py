"""Frames of recordings with what lies around them, for classification frame by frame.

A recording is a sequence of frames. Every frame is seen through a window of neighbours, and has two
labels: the digit, which is to be recognised, and a secondary one, which is known in training only.

- ``spoken-digits``: the free spoken digits, a frame every 10 ms, as the first 13 cepstral
  coefficients (the cosine transform of the log-mel energies, which makes them nearly uncorrelated),
  each of mean zero and variance one; the secondary label is the speaker. The test set is the
  documented one (takes 0 to 4); of the other 45 takes ten, drawn at random, validate.
- ``digit-rows``: comes with scikit-learn. A picture of 8 x 8 pixels is read from top to bottom as a
  recording of eight frames, its rows; the secondary label is the number of the row. Pixels have mean
  zero and variance one.

Recordings are split, not frames: neighbouring frames are almost copies of each other.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float32, Int32
from scipy.fft import dct

from rfho.datasets import context_windows, frame_values, load_digits, load_spoken_digits
from rfho.experiments.settings import one_of

FRAME_SETS = one_of("digit-rows", "spoken-digits")
"""The check of a setting that names the recordings."""

DIGITS = 10
COEFFICIENTS, DEVIATION = 13, 0.4
VALID_SHARE, TEST_SHARE = 0.23, 0.17


class Frames(NamedTuple):
    """Frames with their windows; n frames.

    Attributes:
        windows: ``(n, features)``.
        digit: ``(n,)``, 0..9.
        secondary: ``(n,)``, the secondary label.
    """

    windows: Float32[Array, "n features"]
    digit: Int32[Array, " n"]
    secondary: Int32[Array, " n"]


class FrameSplit(NamedTuple):
    """Training, validation and test frames, of different recordings.

    Attributes:
        train, valid, test: the parts.
        kinds: how many secondary labels there are.
    """

    train: Frames
    valid: Frames
    test: Frames
    kinds: int


class _Recordings(NamedTuple):
    """All frames, one recording after the other; the labels and the part are per recording."""

    frames: np.ndarray
    offsets: np.ndarray
    digit: np.ndarray
    secondary: np.ndarray  # per frame
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
        >>> split.train.windows.shape[1], split.kinds
        (24, 8)
    """
    rng = np.random.default_rng(seed)
    recordings = _spoken_digits(rng) if name == "spoken-digits" else _digit_rows(rng)
    test, valid = (frame_values(recordings.offsets, part) for part in recordings[-2:])
    frames = recordings.frames.astype(np.float32)
    windows = context_windows(frames, recordings.offsets, radius=radius)
    digit = frame_values(recordings.offsets, recordings.digit).astype(np.int32)
    secondary = recordings.secondary.astype(np.int32)
    masks = ~(test | valid), valid, test
    columns = windows, digit, secondary
    parts = [Frames(*(jnp.asarray(column[mask]) for column in columns)) for mask in masks]
    return FrameSplit(*parts, kinds=int(secondary.max()) + 1)


def _spoken_digits(rng: np.random.Generator) -> _Recordings:
    spoken = load_spoken_digits()
    takes = np.unique(spoken.take[~spoken.test])
    chosen = rng.permutation(takes)[: round(VALID_SHARE * len(takes))]
    cepstra = np.asarray(dct(spoken.frames, norm="ortho"))[:, :COEFFICIENTS]
    seen = cepstra[frame_values(spoken.offsets, ~spoken.test)]
    return _Recordings(
        DEVIATION * (cepstra - seen.mean(axis=0)) / seen.std(axis=0),
        spoken.offsets,
        spoken.digit,
        frame_values(spoken.offsets, spoken.speaker),
        spoken.test,
        ~spoken.test & np.isin(spoken.take, chosen),
    )


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
        pictures.labels,
        np.tile(np.arange(height), count),
        test,
        valid,
    )
