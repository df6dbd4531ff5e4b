"""TIMIT: sentences read by 630 speakers of eight dialects of American English, with their phones.

J. Garofolo and others, 1993, LDC93S1. It is not free: the files are read from the folder ``timit``
(or ``TIMIT``) of a licensed copy,

    timit/{train,test}/DIALECT/SPEAKER/SENTENCE.{wav,phn}

in whatever case. Sound is NIST SPHERE, a header of text and 16-bit samples, or RIFF, as some copies
have it. A ``phn`` file has a line ``FIRST LAST PHONE`` for each phone, in samples. The two sentences
that all speakers read (SA1, SA2) are left out, as is usual: 5040 remain.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from rfho.datasets.files import find
from rfho.datasets.log_mel import frame_hop, frame_length, log_mel
from rfho.datasets.sound import MOST_SOUND, in_frames, read_riff
from rfho.errors import DataFormatError, DataNotFoundError
from rfho.files import damaged, parsing, read_bytes

_RATE = 16_000
_FOLDERS = ("timit", "TIMIT")
_MOST_TEXT = 2**20
_PHONE = re.compile(r"\s*([0-9]{1,9})\s+([0-9]{1,9})\s+(\S+)\s*", re.ASCII)

_SYMBOLS = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv "
    "ih ix iy jh k kcl l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh"
)
PHONES = tuple(_SYMBOLS.split())
"""The 61 symbols of the transcriptions; h#, pau, epi and the closures are silences of a kind."""


class Timit(NamedTuple):
    """Frames of all sentences, one sentence after the other.

    Attributes:
        frames: ``(n, 40)``, log-mel.
        offsets: ``(sentences + 1,)``; sentence i is ``frames[offsets[i]:offsets[i + 1]]``.
        phone: ``(n,)``, index into `PHONES`, of the middle of each frame.
        third: ``(n,)``, whether that is the first, second or last third of the phone: 0, 1 or 2.
        following: ``(n,)``, the phone that comes next; in the last one that phone itself.
        speaker: ``(sentences,)``, index into ``speaker_names``.
        test: ``(sentences,)``, whether it belongs to the test part.
        speaker_names: sorted; speakers of the two parts are different ones.
    """

    frames: Float32[np.ndarray, "n 40"]
    offsets: Int32[np.ndarray, " sentences_and_one"]
    phone: Int32[np.ndarray, " n"]
    third: Int32[np.ndarray, " n"]
    following: Int32[np.ndarray, " n"]
    speaker: Int32[np.ndarray, " sentences"]
    test: Bool[np.ndarray, " sentences"]
    speaker_names: tuple[str, ...]


class _Sentence(NamedTuple):
    speaker: str
    test: bool
    frames: np.ndarray
    labels: np.ndarray  # (frames, 3): phone, third, following


def load_timit() -> Timit:
    """All sentences but SA1 and SA2, sorted by part, dialect, speaker and name.

    Raises:
        DataNotFoundError: there is no copy of TIMIT; it must be bought.
        DataFormatError: a file is damaged, or is not what its name promises.

    Example:
        >>> from rfho.datasets import load_timit
        >>> timit = load_timit()  # doctest: +SKIP
    """
    folder = find(*_FOLDERS)
    if folder is None:
        raise DataNotFoundError(
            "TIMIT is not free, and there is no folder 'timit' with a copy of LDC93S1 among the data "
            "files: put one there, or set RFHO_DATA to the folder that holds it"
        )
    sentences = list(_read_all(folder))
    if not sentences:
        raise DataFormatError(
            f"{folder} holds no pairs PART/DIALECT/SPEAKER/SENTENCE.wav and .phn: is it TIMIT?"
        )
    names = sorted({each.speaker for each in sentences})
    phone, third, following = np.concatenate([each.labels for each in sentences]).T
    return Timit(
        np.concatenate([each.frames for each in sentences]).astype(np.float32),
        np.cumsum([0, *(len(each.frames) for each in sentences)]).astype(np.int32),
        phone.astype(np.int32),
        third.astype(np.int32),
        following.astype(np.int32),
        np.array([names.index(each.speaker) for each in sentences], dtype=np.int32),
        np.array([each.test for each in sentences]),
        tuple(names),
    )


def read_sphere(path: Path) -> Float[np.ndarray, " n"]:
    """The samples of a SPHERE or RIFF file in [-1, 1].

    Raises:
        DataFormatError: neither, or not one channel of uncompressed 16-bit samples at 16 kHz.
    """
    content = read_bytes(path, MOST_SOUND)
    if content[:4] == b"RIFF":
        return read_riff(path, _RATE)
    if content[:8] != b"NIST_1A\n":
        raise DataFormatError(f"{path} is neither a SPHERE nor a RIFF file: replace it")
    with parsing(path):
        size = int(content[8:16])
        fields = _fields(content[: max(0, size)].decode("ascii"))
        kind = [int(fields[name]) for name in ("channel_count", "sample_n_bytes", "sample_rate")]
        count, order = int(fields["sample_count"]), fields.get("sample_byte_format", "01")
    coding = fields.get("sample_coding", "pcm")
    if kind != [1, 2, _RATE] or coding != "pcm" or order not in ("01", "10"):
        raise damaged(
            path,
            f"has {kind[0]} channels of {8 * kind[1]} bits ({coding}, byte order {order}) at {kind[2]} Hz, "
            f"not one of 16 bits (pcm, 01 or 10) at {_RATE} Hz",
        )
    if count < 0 or len(content) < size + 2 * count:
        raise damaged(path, f"ends before its {count} samples")
    samples = np.frombuffer(content, "<i2" if order == "01" else ">i2", count, offset=size)
    return in_frames(path, samples, _RATE)


def read_phones(path: Path) -> list[tuple[int, int, int]]:
    """First sample, last sample and phone of each line of a ``phn`` file.

    Raises:
        DataFormatError: a line is something else, an unknown phone, or not in order of time.
    """
    found: list[tuple[int, int, int]] = []
    with parsing(path):
        lines = read_bytes(path, _MOST_TEXT).decode("ascii").splitlines()
    for number, line in enumerate(lines, start=1):
        match = _PHONE.fullmatch(line)
        if match is None or match[3] not in PHONES:
            raise DataFormatError(f"{path}, line {number}: {line[:80]!r} is not FIRST LAST PHONE")
        found.append((int(match[1]), int(match[2]), PHONES.index(match[3])))
    backwards = any(first >= last for first, last, _ in found)
    if not found or backwards or any(a[1] > b[0] for a, b in itertools.pairwise(found)):
        raise DataFormatError(f"{path}: the phones are not in order of time")
    return found


def _read_all(folder: Path) -> Iterator[_Sentence]:
    """Every sentence that has both files."""
    files = {
        tuple(part.lower() for part in path.relative_to(folder).parts): path
        for path in folder.glob("*/*/*/*")
    }
    for (part, dialect, speaker, name), path in sorted(files.items()):
        sound = name.removesuffix(".phn")
        if part not in ("train", "test") or sound == name or sound in ("sa1", "sa2"):
            continue
        places = ((part, dialect, speaker, sound + end) for end in (".wav", ".wav.wav"))
        wav = next((files[place] for place in places if place in files), None)
        if wav is None:
            raise DataFormatError(f"{path} has no sound beside it: {sound}.wav is missing")
        frames = log_mel(read_sphere(wav), _RATE)
        yield _Sentence(speaker, part == "test", frames, _labels(read_phones(path), len(frames)))


def _labels(phones: list[tuple[int, int, int]], count: int) -> np.ndarray:
    """Phone, third and following phone of ``count`` frames, each at the frame's middle."""
    first, last, phone = np.array(phones).T
    middle = np.arange(count) * frame_hop(_RATE) + frame_length(_RATE) // 2
    at = np.clip(np.searchsorted(first, middle, side="right") - 1, 0, None)
    third = np.clip(3 * (middle - first[at]) // (last[at] - first[at]), 0, 2)
    following = phone[np.minimum(at + 1, len(phone) - 1)]
    return np.stack([phone[at], third, following], axis=1)


def _fields(header: str) -> dict[str, str]:
    """The lines ``NAME -TYPE VALUE`` up to ``end_head``."""
    fields: dict[str, str] = {}
    for line in header.splitlines()[2:]:
        if line.strip() == "end_head":
            return fields
        name, _, value = line.split(None, 2)
        fields[name] = value.strip()
    raise ValueError("the header does not end with end_head")
