"""TIMIT: small files in its own format are read exactly, and nothing else is read at all."""

import wave

import numpy as np
import pytest

from rfho import datasets
from rfho.datasets import DataFormatError, DataNotFoundError, timit

RATE = 16_000


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder that RFHO_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("RFHO_DATA", str(folder))
    return folder


def sphere(samples, *, order="01", **changed) -> bytes:
    """A SPHERE file: a header of 1024 bytes, then the samples."""
    fields = {
        "channel_count": "-i 1",
        "sample_count": f"-i {len(samples)}",
        "sample_rate": f"-i {RATE}",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": f"-s2 {order}",
    } | changed
    lines = ["NIST_1A", "   1024", *(f"{name} {value}" for name, value in fields.items())]
    header = "\n".join([*lines, "end_head", ""]).encode("ascii").ljust(1024)
    return header + np.asarray(samples).astype("<i2" if order == "01" else ">i2").tobytes()


def write(folder, place, phones, *, upper=False, length=1600):
    """One sentence: noise of ``length`` samples, and its phones."""
    place = place.upper() if upper else place
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).integers(-999, 999, length)
    end = [".wav", ".phn"]
    wav, phn = (path.with_name(path.name + (each.upper() if upper else each)) for each in end)
    wav.write_bytes(sphere(samples))
    phn.write_text("".join(f"{first} {last} {phone}\n" for first, last, phone in phones))
    return wav, phn


class TestSphere:
    @pytest.mark.parametrize("order", ["01", "10"])
    def test_samples_come_back_in_either_byte_order(self, tmp_path, order):
        samples = np.array([0, 1, -32768, 16384] * 100)
        (tmp_path / "a.wav").write_bytes(sphere(samples, order=order))
        np.testing.assert_array_equal(timit.read_sphere(tmp_path / "a.wav"), samples / 32768)

    def test_copies_in_the_riff_format_are_read_too(self, tmp_path):
        samples = np.array([3, -2, 1, 0] * 100, "<i2")
        with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
            sound.setparams((1, 2, RATE, 400, "NONE", ""))
            sound.writeframes(samples.tobytes())
        np.testing.assert_array_equal(timit.read_sphere(tmp_path / "a.wav"), samples / 32768)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"ID3 some other sound", "neither a SPHERE nor a RIFF"),
            (b"RIFF and no more", "cannot be read .* damaged"),
            (sphere([1, 2, 3])[:-1], "ends before its 3 samples"),
            (sphere([1] * 399), "399 samples, fewer than the 400 of a frame"),
            (sphere([1], sample_rate="-i 8000"), "8000 Hz"),
            (sphere([1], channel_count="-i 2"), "2 channels"),
            (sphere([1], sample_coding="-s26 pcm,embedded-shorten-v2.00"), "shorten"),
            (sphere([1], sample_count="-i many"), "invalid literal .* damaged"),
            (sphere([1], sample_count="-i -1"), "ends before its -1 samples"),
        ],
    )
    def test_anything_else_is_refused(self, tmp_path, content, said):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(DataFormatError, match=said):
            timit.read_sphere(tmp_path / "a.wav")


class TestPhones:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("0 10 h#\n10 20 qq\n", "line 2"),
            ("0 10\n", "line 1"),
            ("0 x h#\n", "line 1"),
            ("10 20 h#\n0 10 aa\n", "order of time"),
            ("10 10 h#\n", "order of time"),
            ("", "order of time"),
        ],
    )
    def test_a_file_that_is_no_transcription_is_refused(self, tmp_path, text, said):
        (tmp_path / "a.phn").write_text(text)
        with pytest.raises(DataFormatError, match=said):
            timit.read_phones(tmp_path / "a.phn")

    def test_there_are_sixty_one(self):
        assert len(set(datasets.PHONES)) == 61


class TestLoading:
    def test_every_frame_has_the_phone_at_its_middle(self, data):
        # Frames of 400 samples every 160: their middles are at 200, 360, …, 1320.
        write(data / "timit", "train/dr1/fabc0/sx1", [(0, 600, "h#"), (600, 1600, "aa")])
        found = datasets.load_timit()
        names = [datasets.PHONES[phone] for phone in found.phone]
        assert names == ["h#"] * 3 + ["aa"] * 5
        assert found.third.tolist() == [1, 1, 2, 0, 0, 1, 1, 2]
        assert {datasets.PHONES[phone] for phone in found.following} == {"aa"}
        assert found.frames.shape == (8, 40)
        assert np.isfinite(found.frames).all()

    def test_parts_speakers_and_sentences_are_told_apart(self, data):
        phones = [(0, 1600, "pau")]
        write(data / "TIMIT", "test/dr2/mxyz0/si9", phones, upper=True, length=560)
        write(data / "TIMIT", "train/dr1/fabc0/sx1", phones, upper=True)
        write(data / "TIMIT", "train/dr1/fabc0/sa1", phones, upper=True)
        found = datasets.load_timit()
        assert found.speaker_names == ("fabc0", "mxyz0")
        assert found.offsets.tolist() == [0, 2, 10]  # SA1, which all speakers read, is left out
        assert found.test.tolist() == [True, False]
        assert found.speaker.tolist() == [1, 0]

    def test_without_a_copy_one_learns_that_it_is_not_free(self, data):
        with pytest.raises(DataNotFoundError, match="not free"):
            datasets.load_timit()

    def test_a_folder_without_sentences_is_refused(self, data):
        (data / "timit").mkdir()
        with pytest.raises(DataFormatError, match="is it TIMIT"):
            datasets.load_timit()

    def test_a_transcription_without_sound_is_refused(self, data):
        wav, _ = write(data / "timit", "train/dr1/fabc0/sx1", [(0, 1600, "aa")])
        wav.unlink()
        with pytest.raises(DataFormatError, match="no sound beside it"):
            datasets.load_timit()
