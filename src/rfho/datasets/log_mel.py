"""Log-mel frames of a recording: how loud it is in bands that are as wide as the ear's, every 10 ms.

Pre-emphasis x_t - 0.97 x_{t-1}; frames of 25 ms every 10 ms, without padding; Hamming window;
power |FFT|², with the least power of two that holds a frame; 40 triangles between 20 Hz and half the
sampling rate, equally spaced on the scale 2595 log10(1 + f / 700); logarithm of (energy + 1e-9).
"""

import numpy as np
from jaxtyping import Float

BANDS = 40


def frame_length(rate: int) -> int:
    """Samples in a frame of 25 ms."""
    return rate // 40


def frame_hop(rate: int) -> int:
    """Samples from one frame to the next, 10 ms."""
    return rate // 100


def log_mel(samples: Float[np.ndarray, " n"], rate: int = 8000) -> Float[np.ndarray, "frames 40"]:
    """The frames of a recording of n samples in [-1, 1]: at 8 kHz 1 + (n - 200) // 80 of them.

    Args:
        samples: the recording.
        rate: samples per second.

    Raises:
        ValueError: less than one frame.

    Example:
        >>> log_mel(np.zeros(360)).shape
        (3, 40)
    """
    length, hop = frame_length(rate), frame_hop(rate)
    if len(samples) < length:
        raise ValueError(f"{len(samples)} samples, but a frame needs {length} (25 ms)")
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, length)[::hop]
    points = 2 ** (length - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * np.hamming(length), points)) ** 2
    return np.log(power @ _triangles(rate, points).T + 1e-9)


def _triangles(rate: int, points: int) -> Float[np.ndarray, "40 frequencies"]:
    """Band i rises from corner i to 1 at corner i + 1 and falls to 0 at corner i + 2."""
    lowest, highest = 2595 * np.log10(1 + np.array([20.0, rate / 2]) / 700)
    corners = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    frequency = np.arange(points // 2 + 1) * rate / points
    rising, falling = (frequency - left) / (centre - left), (right - frequency) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling))
