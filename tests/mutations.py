"""Damage of every kind to the bytes of a file: what disks, networks and strangers do to them."""

from collections.abc import Callable

import numpy as np

Damage = Callable[[bytearray, np.random.Generator], bytearray]


def flipped(content: bytearray, draw: np.random.Generator) -> bytearray:
    """One to eight bits, anywhere."""
    for at in draw.integers(0, len(content), draw.integers(1, 9)):
        content[at] ^= 1 << int(draw.integers(8))
    return content


def flipped_at_an_end(content: bytearray, draw: np.random.Generator) -> bytearray:
    """One bit among the first or the last hundred bytes, where headers are."""
    at = int(draw.integers(0, min(100, len(content))))
    content[at if draw.integers(2) else len(content) - 1 - at] ^= 1 << int(draw.integers(8))
    return content


def truncated(content: bytearray, draw: np.random.Generator) -> bytearray:
    """Cut off anywhere, often near an end."""
    keep = (
        draw.integers(0, len(content)) if draw.integers(2) else len(content) - draw.integers(1, 65)
    )
    return content[: max(0, int(keep))]


def spliced(content: bytearray, draw: np.random.Generator) -> bytearray:
    """A piece of the file in another place of it, over or between what was there."""
    begin, end = sorted(draw.integers(0, len(content), 2).tolist())
    to = int(draw.integers(0, len(content)))
    rest = to + (end - begin if draw.integers(2) else 0)
    return content[:to] + content[begin:end] + content[rest:]


def huge(content: bytearray, draw: np.random.Generator) -> bytearray:
    """A number of four or eight bytes that is as large, or as negative, as it can be."""
    width = int(draw.choice([4, 8]))
    limit = min(len(content), 200 if draw.integers(2) else len(content))
    at = int(draw.integers(0, max(1, limit - width)))
    value = [b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), b"\xff" * (width - 1) + b"\x7f"]
    content[at : at + width] = value[int(draw.integers(3))]
    return content


def digits(content: bytearray, draw: np.random.Generator) -> bytearray:
    """A number written in digits becomes another one, often a very long one."""
    places = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flipped(content, draw)
    at = int(draw.choice(places))
    return (
        content[:at] + draw.choice([b"-1", b"9" * 30, b"9" * 5000, b"", b"NaN"]) + content[at + 1 :]
    )


def holed(content: bytearray, draw: np.random.Generator) -> bytearray:
    """A run of zeros, as a disk leaves after a power failure."""
    begin, end = sorted(draw.integers(0, len(content) + 1, 2).tolist())
    content[begin:end] = bytes(end - begin)
    return content


def repeated(content: bytearray, draw: np.random.Generator) -> bytearray:
    """Everything twice, or with rubbish behind it."""
    return content + (content if draw.integers(2) else draw.bytes(int(draw.integers(1, 50))))


def replaced(content: bytearray, draw: np.random.Generator) -> bytearray:
    """Nothing of it is left."""
    return bytearray(draw.bytes(int(draw.integers(0, 200))))


DAMAGES: tuple[Damage, ...] = (
    flipped,
    flipped_at_an_end,
    truncated,
    spliced,
    huge,
    digits,
    holed,
    repeated,
    replaced,
)


def damaged(content: bytes, seed: int) -> bytes:
    """The content with the damage that the seed decides, each kind in turn."""
    draw = np.random.default_rng(seed)
    return bytes(DAMAGES[seed % len(DAMAGES)](bytearray(content), draw))
