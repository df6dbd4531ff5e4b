"""Recordings in RIFF files: one channel of 16-bit samples at a rate that is known beforehand."""

import wave
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rfho.datasets.log_mel import frame_length
from rfho.files import damaged, parsing, readable

MOST_SOUND = 2**28
"""No recording is larger: 256 MiB are more than two hours at 16 kHz."""


def read_riff(path: Path, rate: int) -> Float[np.ndarray, " n"]:
    """The samples of a RIFF file in [-1, 1].

    Raises:
        DataFormatError: no RIFF file, another kind of sound, cut off, or less than one frame.
    """
    with parsing(path), wave.open(str(readable(path, MOST_SOUND))) as sound:
        kind = (sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate())
        count, content = sound.getnframes(), sound.readframes(sound.getnframes())
    if kind != (1, 16, rate):
        raise damaged(
            path,
            f"has {kind[0]} channels of {kind[1]} bits at {kind[2]} Hz, not one of 16 bits at {rate} Hz",
        )
    if len(content) != 2 * count:
        raise damaged(path, f"ends before its {count} samples")
    return in_frames(path, np.frombuffer(content, "<i2"), rate)


def in_frames(path: Path, samples: np.ndarray, rate: int) -> Float[np.ndarray, " n"]:
    """16-bit samples in [-1, 1].

    Raises:
        DataFormatError: they do not fill one frame.
    """
    if len(samples) < frame_length(rate):
        raise damaged(
            path, f"has {len(samples)} samples, fewer than the {frame_length(rate)} of a frame"
        )
    return samples / 32768
