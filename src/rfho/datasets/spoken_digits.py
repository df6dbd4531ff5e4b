"""Free Spoken Digit Dataset: 3,000 recordings of the digits by 6 speakers, as log-mel frames.

Z. Jackson and others, CC BY-SA 4.0. Frames are read from ``fsdd_logmel40.npz`` if that is there,
else computed from the recordings of a copy of the authors' repository. At 8 kHz: pre-emphasis
x_t - 0.97 x_{t-1}; frames of 200 samples (25 ms) every 80 (10 ms); Hamming window; |FFT|² of 256
points; 40 triangles between 20 and 4000 Hz, equally spaced on the scale 2595 log10(1 + f / 700);
logarithm of (energy + 1e-9). Levels differ between speakers: nothing is normalised.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from rfho.datasets.files import find, locate
from rfho.datasets.log_mel import BANDS, log_mel
from rfho.datasets.sound import read_riff
from rfho.errors import DataFormatError
from rfho.files import Array, read_arrays

_FILE = "fsdd_logmel40.npz"
_NAME = re.compile(r"([0-9])_([^_]+)_([0-9]{1,3})\.wav")
_REPOSITORY = "free-spoken-digit-dataset"
_RATE = 8000
_TEST_TAKES, _TAKES = 5, 1000
_LOUDNESS = (-100, 100)  # a logarithm of energies from 1e-9 to those of 16-bit samples


class SpokenDigits(NamedTuple):
    """Frames of all recordings, one recording after the other.

    Attributes:
        frames: ``(n, 40)``.
        offsets: ``(recordings + 1,)``; recording i is ``frames[offsets[i]:offsets[i + 1]]``.
        digit: ``(recordings,)``, 0..9.
        speaker: ``(recordings,)``, index into ``speaker_names``.
        take: ``(recordings,)``, the number of the recording, 0..49.
        test: ``(recordings,)``, whether it belongs to the documented test set (takes 0 to 4).
        speaker_names: the six speakers.
    """

    frames: Float32[np.ndarray, "n 40"]
    offsets: Int32[np.ndarray, " recordings_and_one"]
    digit: Int32[np.ndarray, " recordings"]
    speaker: Int32[np.ndarray, " recordings"]
    take: Int32[np.ndarray, " recordings"]
    test: Bool[np.ndarray, " recordings"]
    speaker_names: tuple[str, ...]


def load_spoken_digits() -> SpokenDigits:
    """All recordings, sorted by speaker, digit and take.

    Raises:
        DataNotFoundError: neither the frames nor the recordings are in a folder; there is no
            archive with a fixed checksum to download.
        DataFormatError: a file is damaged.

    Example:
        >>> from rfho.datasets import load_spoken_digits
        >>> spoken = load_spoken_digits()  # doctest: +SKIP
    """
    recordings = find(f"{_REPOSITORY}/recordings")
    if recordings is not None and find(_FILE) is None:
        return read_recordings(recordings)
    advice = f"or clone https://github.com/Jakobovski/{_REPOSITORY} into that folder"
    return read_frames(locate(_FILE, home=None, advice=advice))


def context_windows(
    frames: Float[np.ndarray, "n features"], offsets: Int[np.ndarray, " k"], *, radius: int
) -> Float[np.ndarray, "n windows"]:
    """Every frame with its ``radius`` neighbours on each side, side by side in order of time.

    A window never looks into another recording: at the ends the first or last frame is repeated.

    Returns:
        ``(n, (2 radius + 1) features)``.

    Raises:
        ValueError: ``radius`` is negative or ``offsets`` do not run from 0 to n.

    Example:
        >>> frames = np.array([[1.0], [2.0], [9.0]])
        >>> context_windows(frames, np.array([0, 2, 3]), radius=1)
        array([[1., 1., 2.],
               [1., 2., 2.],
               [9., 9., 9.]])
    """
    if radius < 0:
        raise ValueError(f"radius = {radius}, but a window reaches 0 or more frames to each side")
    _check_offsets(offsets, len(frames), source="offsets")
    recording = frame_values(offsets, np.arange(len(offsets) - 1))
    first, last = offsets[recording], offsets[recording + 1] - 1
    neighbours = np.arange(len(frames))[:, None] + np.arange(-radius, radius + 1)
    inside = np.clip(neighbours, first[:, None], last[:, None])
    return frames[inside].reshape(len(frames), -1)


def frame_values(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A value per recording (its digit, say) as a value per frame.

    Example:
        >>> frame_values(np.array([0, 2, 3]), np.array([7, 4]))
        array([7, 7, 4])
    """
    return np.repeat(values, np.diff(offsets))


def read_frames(path: Path) -> SpokenDigits:
    """The data set from its file of frames.

    Raises:
        DataFormatError: damaged, or offsets and recordings disagree.
    """
    lowest, highest = _LOUDNESS
    frames, offsets, digit, speaker, take, test, speakers = read_arrays(
        path,
        Array("frames", (np.floating,), ("frames", BANDS), lowest=lowest, below=highest),
        Array("offsets", (np.integer,), ("recordings_and_one",), lowest=0, below=2**31),
        Array("digit", (np.integer,), ("recordings",), lowest=0, below=10),
        Array("speaker", (np.integer,), ("recordings",), lowest=0, below="speakers"),
        Array("take", (np.integer,), ("recordings",), lowest=0, below=_TAKES),
        Array("test", (np.bool_,), ("recordings",)),
        Array("speaker_names", (np.str_,), ("speakers",)),
    )
    _check_offsets(offsets, len(frames), source=str(path))
    if len(digit) != len(offsets) - 1:
        raise DataFormatError(f"{path}: {len(offsets) - 1} recordings but {len(digit)} digits")
    return SpokenDigits(
        frames.astype(np.float32),
        offsets.astype(np.int32),
        digit.astype(np.int32),
        speaker.astype(np.int32),
        take.astype(np.int32),
        test.astype(np.bool_),
        tuple(str(name) for name in speakers),
    )


def read_recordings(folder: Path) -> SpokenDigits:
    """The data set from the recordings ``DIGIT_SPEAKER_TAKE.wav`` of a folder.

    Raises:
        DataFormatError: there are none, or one is not 16-bit mono sound at 8 kHz.
    """
    files = {
        (match[2], int(match[1]), int(match[3])): path
        for path in sorted(folder.glob("*.wav"))
        if (match := _NAME.fullmatch(path.name))
    }
    if not files:
        raise DataFormatError(f"{folder} holds no recordings named DIGIT_SPEAKER_TAKE.wav")
    keys = sorted(files)
    frames = [log_mel(read_riff(files[key], _RATE)).astype(np.float32) for key in keys]
    speakers = sorted({name for name, _, _ in keys})
    take = np.array([number for _, _, number in keys], dtype=np.int32)
    return SpokenDigits(
        np.concatenate(frames),
        np.cumsum([0, *map(len, frames)]).astype(np.int32),
        np.array([digit for _, digit, _ in keys], dtype=np.int32),
        np.array([speakers.index(name) for name, _, _ in keys], dtype=np.int32),
        take,
        take < _TEST_TAKES,
        tuple(speakers),
    )


def _check_offsets(offsets: np.ndarray, count: int, *, source: str) -> None:
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != count or np.any(np.diff(offsets) < 1):
        raise DataFormatError(
            f"{source}: {len(offsets)} offsets do not rise from 0 to the number of frames, {count}"
        )
