"""A damaged data file gives the right data or one error that names it, whatever its format.

Every file of every format is damaged in every way of `mutations`. Formats that carry a checksum (npz, zip,
gzip) give the right data or the error; of the others, which cannot know, the published checksum of the file
does, and without it their schema still holds.
"""

import gzip
import hashlib
import io
import tarfile
import tracemalloc
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
from mutations import DAMAGES, damaged
from PIL import Image
from test_datasets import idx
from test_timit import sphere

from rfho.datasets import (
    DataFormatError,
    base,
    cifar10,
    files,
    newsgroups,
    omniglot,
    spoken_digits,
    text,
    timit,
)
from rfho.datasets.idx import read_idx
from rfho.files import packed

DRAW = np.random.default_rng(0)


class Format(NamedTuple):
    """A kind of file: its name and content, how it is read, and whether it knows when it is damaged."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    knows: bool = True


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def stored(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(stream, "PNG")
    return stream.getvalue()


def riff(samples: np.ndarray, rate: int) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setparams((1, 2, rate, len(samples), "NONE", ""))
        sound.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def sparse(counts: np.ndarray) -> bytes:
    stream = io.BytesIO()
    sp.save_npz(stream, sp.csr_matrix(counts.astype(np.int16)))
    return stream.getvalue()


def zipped_drawings() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for drawer in range(20):
            pixels = np.full((105, 105), 255, np.uint8)
            pixels[: 5 * drawer + 1] = 0
            archive.writestr(f"images/Greek/character07/0007_{drawer:02d}.png", png(pixels))
    return stream.getvalue()


NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
BATCHES = {
    f"cifar-10-batches-bin/{name}": b"".join(bytes([k]) + DRAW.bytes(3072) for k in range(2))
    for name in NAMES
}
MESSAGES = {
    "20news-bydate-train/sci.space/200": b"Moon moon caf\xe9",
    "20news-bydate-train/alt.atheism/9": b"belief",
    "20news-bydate-test/sci.space/1": b"moon unseen",
}
SAMPLES = DRAW.integers(-999, 999, 800)
SPEECH = {
    "frames": DRAW.normal(size=(4, 40)).astype(np.float16),
    "offsets": np.array([0, 2, 4]),
    "digit": np.array([0, 1]),
    "speaker": np.zeros(2, int),
    "take": np.arange(2),
    "test": np.zeros(2, bool),
    "speaker_names": np.array(["anna"]),
}
BITS = {
    "images": DRAW.integers(0, 256, (2, 20, 98), dtype=np.uint8),
    "alphabet": np.array([0, 1]),
    "character": np.array([1, 1]),
    "evaluation": np.array([False, True]),
    "alphabet_names": np.array(["Greek", "Ærø"]),
}
PICTURES = DRAW.integers(0, 256, (5, 6, 7), dtype=np.uint8)

FORMATS = (
    Format("a.npz", npz(x=DRAW.normal(size=(20, 3))), lambda path: base.read_arrays(path, "x")),
    Format("stored.npz", stored(x=np.arange(60)), lambda path: base.read_arrays(path, "x")),
    Format("omniglot_28x28_bits.npz", npz(**BITS), omniglot.read_bits),
    Format("fsdd_logmel40.npz", stored(**SPEECH), spoken_digits.read_frames),
    Format("counts.npz", sparse(DRAW.poisson(0.5, (6, 9))), newsgroups._read_counts),
    Format("images.gz", gzip.compress(idx(PICTURES)), lambda path: read_idx(path, dimensions=3)),
    Format("images.zip", zipped_drawings(), lambda path: omniglot.read_archives(path, path)),
    Format("cifar.tar.gz", tar(BATCHES), lambda path: cifar10.read_archive(path, records=2)),
    Format("news.tar.gz", tar(MESSAGES), newsgroups.count_words),
    Format("images", idx(PICTURES), lambda path: read_idx(path, dimensions=3), knows=False),
    Format("sphere.wav", sphere(SAMPLES), timit.read_sphere, knows=False),
    Format("riff.wav", riff(SAMPLES, 16_000), timit.read_sphere, knows=False),
    Format("a.phn", b"0 600 h#\n600 1600 aa\n", timit.read_phones, knows=False),
    Format("text.txt", b"First Citizen:\n" * 9, text.read_text, knows=False),
)

each_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


@each_format
def test_a_damaged_file_is_refused_or_read_rightly(form, tmp_path):
    look(form, tmp_path, range(6 * len(DAMAGES)))


@pytest.mark.soak
@each_format
def test_a_thousand_damaged_files_are_refused_or_read_rightly(form, tmp_path):
    look(form, tmp_path, range(1000, 2100))


def look(form: Format, folder: Path, seeds: range) -> None:
    path = folder / form.name
    path.write_bytes(form.content)
    right = form.read(path)
    digest = hashlib.sha256(form.content).hexdigest()
    refused = 0
    for seed in seeds:
        content = damaged(form.content, seed)
        path.write_bytes(content)
        found = outcome(form, path)
        if isinstance(found, str):
            assert str(path) in found, seed
            assert "\n" not in found, seed
            refused += 1
        else:
            assert not form.knows or same(found, right), seed
        if content != form.content:
            with pytest.raises(DataFormatError, match="checksum"):
                files._compare(folder, form.name, f"sha256:{digest}")
    assert not form.knows or refused > len(seeds) / 2


def outcome(form: Format, path: Path) -> Any:
    """What is read, or what is said of it."""
    try:
        return form.read(path)
    except DataFormatError as error:
        return str(error)


def same(found: Any, right: Any) -> bool:
    if isinstance(right, sp.csr_array):
        return found.shape == right.shape and np.array_equal(found.toarray(), right.toarray())
    if isinstance(right, tuple | list):
        return len(found) == len(right) and all(map(same, found, right))
    return np.array_equal(found, right)


class TestBombs:
    """Few bytes that stand for many: refused before the many exist."""

    MANY = 200_000_000

    @pytest.fixture(autouse=True)
    def memory(self):
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50_000_000

    def compressed(self) -> bytes:
        return b"".join(gzip.compress(bytes(10_000_000)) for _ in range(self.MANY // 10_000_000))

    def test_an_array_that_is_larger_than_its_header_says(self, tmp_path):
        path = tmp_path / "images.gz"
        path.write_bytes(gzip.compress(idx(np.zeros((2, 2), np.uint8))) + self.compressed())
        with pytest.raises(DataFormatError, match="more than 4 bytes"):
            read_idx(path, dimensions=2)

    def test_an_archive_that_is_larger_than_the_data_set(self, tmp_path):
        path = tmp_path / "a.tar.gz"
        path.write_bytes(self.compressed())
        with pytest.raises(DataFormatError, match="more than 10000000 bytes"):
            packed.tar_members(path, lambda name: True, most=10_000_000)

    def test_a_member_that_is_larger_than_the_data_set(self, tmp_path):
        path = tmp_path / "a.tar.gz"
        member = tarfile.TarInfo("big")
        member.size = self.MANY
        path.write_bytes(gzip.compress(member.tobuf()) + self.compressed())
        with pytest.raises(DataFormatError, match="'big' of 200000000 bytes"):
            packed.tar_members(path, lambda name: True, most=10_000_000)

    def test_a_sparse_member(self, tmp_path):
        path = tmp_path / "a.tar.gz"
        member = tarfile.TarInfo("sparse")
        member.pax_headers = {"GNU.sparse.size": str(self.MANY), "GNU.sparse.map": "0,1"}
        member.size = 1
        with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(member, io.BytesIO(b"x"))
        with pytest.raises(DataFormatError, match=r"'sparse' .* sparse"):
            packed.tar_members(path, lambda name: True)

    def test_a_drawing_of_a_hundred_million_pixels(self, tmp_path):
        path = tmp_path / "a.zip"
        content = bytearray(png(np.zeros((105, 105), np.uint8)))
        content[16:24] = (10_000).to_bytes(4) * 2
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/Greek/character01/0001_01.png", bytes(content))
        with pytest.raises(DataFormatError, match="no PNG file of 105 x 105 pixels"):
            omniglot.read_archives(path, path)

    @pytest.mark.parametrize("size", [2**31, 2**40])
    def test_an_array_of_terabytes(self, tmp_path, size):
        path = tmp_path / "a.npz"
        stream = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (size // 8,)}
        np.lib.format.write_array_header_1_0(stream, header)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", stream.getvalue())
        with pytest.raises(DataFormatError, match="has 0 bytes of data for the array 'x'"):
            base.read_arrays(path, "x")

    def test_a_member_is_refused_by_its_size_alone(self, tmp_path):
        path = tmp_path / "a.npz"
        path.write_bytes(npz(x=np.zeros(1000)))
        with pytest.raises(DataFormatError, match=r"'x\.npy' of 8128 bytes, more than 1000"):
            packed.zipped(path, most=1000).__enter__()


class TestSchema:
    """Each clause of an `Array` refuses what it is there for, and says what was expected."""

    @pytest.mark.parametrize(
        ("array", "wanted", "said"),
        [
            (np.zeros(3), base.Array("x", (np.integer,)), "'x' of type float64, not integer"),
            (np.zeros(3, "m8[s]"), base.Array("x"), "of type timedelta64"),
            (np.zeros(3, [("a", int)]), base.Array("x"), "not integer or floating or bool or str"),
            (np.zeros((3, 2)), base.Array("x", shape=("n",)), r"shape \(3, 2\), not \(n\)"),
            (np.zeros((3, 2)), base.Array("x", shape=("n", 3)), r"shape \(3, 2\), not \(n, 3\)"),
            (np.zeros((3, 2)), base.Array("x", shape=("n", "n")), r"shape \(3, 2\), not \(n, n\)"),
            (
                np.arange(3),
                base.Array("x", lowest=1),
                "values from 0 to 2 in the array 'x'.* from 1",
            ),
            (np.arange(3), base.Array("x", below=2), "which run to less than 2"),
            (np.array([1, np.nan]), base.Array("x"), "a NaN or an infinity in the array 'x'"),
            (np.array([np.inf]), base.Array("x"), "a NaN or an infinity in the array 'x'"),
            (np.array([7], np.uint8).view(bool), base.Array("x"), "neither true nor false in 'x'"),
            (np.array([0x110000], np.uint32).view("U1"), base.Array("x"), "does not exist in"),
            (np.array([0xD800], np.uint32).view("U1"), base.Array("x"), "does not exist in"),
        ],
    )
    def test_it_refuses(self, tmp_path, array, wanted, said):
        path = tmp_path / "a.npz"
        path.write_bytes(stored(x=array))
        with pytest.raises(DataFormatError, match=said):
            base.read_arrays(path, wanted)

    def test_axes_of_one_name_have_one_size(self, tmp_path):
        path = tmp_path / "a.npz"
        path.write_bytes(stored(x=np.zeros((3, 2)), y=np.zeros(4)))
        wanted = base.Array("x", shape=("n", 2)), base.Array("y", shape=("n",))
        with pytest.raises(DataFormatError, match=r"'y' of the shape \(4,\), not \(n\) with n = 3"):
            base.read_arrays(path, *wanted)

    def test_a_value_may_be_bounded_by_the_size_of_an_axis(self, tmp_path):
        path = tmp_path / "a.npz"
        wanted = base.Array("x", below="names"), base.Array("y", shape=("names",))
        path.write_bytes(stored(x=np.array([0, 1]), y=np.array(["a", "b"])))
        assert base.read_arrays(path, *wanted)[0].tolist() == [0, 1]
        path.write_bytes(stored(x=np.array([0, 2]), y=np.array(["a", "b"])))
        with pytest.raises(DataFormatError, match=r"values from 0 to 2 .* less than 2"):
            base.read_arrays(path, *wanted)

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", [">f4", "<i8", "?", "<U3", ">U3"])
    def test_what_numpy_writes_is_read(self, tmp_path, dtype, order):
        array = np.asarray(np.arange(6).reshape(2, 3), dtype, order=order)
        path = tmp_path / "a.npz"
        path.write_bytes(stored(x=array))
        np.testing.assert_array_equal(base.read_arrays(path, "x")[0], array)
