"""Data sets: files of the original formats are read exactly, and nothing else is read at all."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfho import cli, datasets
from rfho.datasets import base, cifar10, files, newsgroups, omniglot, spoken_digits, text
from rfho.datasets.catalogue import DATA_SETS
from rfho.datasets.idx import read_idx

BYTES = np.random.default_rng(0)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder that RFHO_DATA names; the cache is empty, and no home can be reached."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("RFHO_DATA", str(folder))
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


def idx(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}i", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_idx(folder: Path, *, suffix: str = ".gz") -> dict[str, np.ndarray]:
    """The four files of MNIST, with 5 + 3 images of 2 x 3 pixels."""
    written = {}
    folder.mkdir()
    for prefix, count in (("train", 5), ("t10k", 3)):
        pixels = BYTES.integers(0, 256, (count, 2, 3), dtype=np.uint8)
        labels = BYTES.integers(0, 10, count, dtype=np.uint8)
        for stem, array in ((f"{prefix}-images-idx3", pixels), (f"{prefix}-labels-idx1", labels)):
            content = gzip.compress(idx(array)) if suffix else idx(array)
            (folder / f"{stem}-ubyte{suffix}").write_bytes(content)
            written[stem] = array
    mine(folder.parent, *(path.relative_to(folder.parent) for path in folder.iterdir()))
    return written


def mine(folder: Path, *names: str | Path) -> None:
    """Says that files are the user's own."""
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    ]
    (folder / files.LIST).write_text("".join(lines))


OTHERS = [
    f"mnist/{stem}-ubyte.gz"
    for stem in ("train-images-idx3", "t10k-images-idx3", "t10k-labels-idx1")
]


class TestIdx:
    @pytest.mark.parametrize("suffix", [".gz", ""])
    @pytest.mark.parametrize(
        ("name", "load"),
        [("mnist", datasets.load_mnist), ("fashion_mnist", datasets.load_fashion_mnist)],
    )
    def test_files_are_read_exactly(self, data, name, load, suffix):
        written = write_idx(data / name, suffix=suffix)
        for part, prefix in zip(load(), ("train", "t10k"), strict=True):
            assert part.images.dtype == np.float32
            assert part.labels.dtype == np.int32
            np.testing.assert_array_equal(part.images * 255, written[f"{prefix}-images-idx3"])
            np.testing.assert_array_equal(part.labels, written[f"{prefix}-labels-idx1"])
            assert len(part.class_names) == 10

    @pytest.mark.parametrize("missing", [1, 4, 12, 17])
    def test_a_truncated_file_is_refused(self, tmp_path, missing):
        path = tmp_path / "images"
        path.write_bytes(idx(np.zeros((3, 2, 2), np.uint8))[:-missing])
        with pytest.raises(datasets.DataFormatError, match=r"images .* damaged"):
            read_idx(path, dimensions=3)

    def test_a_file_with_something_after_its_end_is_refused(self, tmp_path):
        path = tmp_path / "images"
        path.write_bytes(idx(np.zeros((3, 2, 2), np.uint8)) + b"\0")
        with pytest.raises(datasets.DataFormatError, match=r"more than 12 bytes .* \(3, 2, 2\)"):
            read_idx(path, dimensions=3)

    @pytest.mark.parametrize("magic", [b"\0\0\x08\x01", b"\0\0\x0d\x03", b"PK\x03\x04"])
    def test_another_magic_number_is_refused(self, tmp_path, magic):
        path = tmp_path / "images"
        path.write_bytes(magic + idx(np.zeros((3, 2, 2), np.uint8))[4:])
        with pytest.raises(datasets.DataFormatError, match="magic number 00 00 08 03"):
            read_idx(path, dimensions=3)

    @pytest.mark.parametrize("cut", [5, 20])
    def test_a_truncated_compressed_file_is_refused(self, tmp_path, cut):
        path = tmp_path / "images.gz"
        path.write_bytes(gzip.compress(idx(np.arange(200, dtype=np.uint8)))[:-cut])
        with pytest.raises(datasets.DataFormatError, match=r"images\.gz .* damaged"):
            read_idx(path, dimensions=1)

    def test_images_and_labels_must_be_equally_many(self, data):
        write_idx(data / "mnist")
        path = data / "mnist" / "train-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(idx(np.zeros(4, np.uint8))))
        mine(data, "mnist/train-labels-idx1-ubyte.gz", *OTHERS)
        with pytest.raises(datasets.DataFormatError, match="5 images but 4 labels"):
            datasets.load_mnist()

    def test_a_label_of_no_class_is_refused(self, data):
        write_idx(data / "mnist")
        path = data / "mnist" / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(idx(np.array([0, 10, 3], np.uint8))))
        mine(data, "mnist/train-labels-idx1-ubyte.gz", *OTHERS)
        with pytest.raises(
            datasets.DataFormatError, match="from 0 to 10, but there are 10 classes"
        ):
            datasets.load_mnist()


class TestCommands:
    """``rfho data``, in an empty folder of data and without a network."""

    def test_all_are_listed_with_where_they_are(self, data, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        (data / "tinyshakespeare.txt").write_text("abba")
        assert cli.main(["data", "list"], experiments=()) == 0
        said = capsys.readouterr().out
        assert f"{data / 'tinyshakespeare.txt'}" in said
        assert "not here (11 MB)" in said
        assert all(each.name in said for each in DATA_SETS)

    def test_every_data_set_of_the_package_is_listed(self):
        loads = {getattr(datasets, name) for name in datasets.__all__ if name.startswith("load_")}
        assert {each.load for each in DATA_SETS} == loads

    def test_what_is_there_is_read_and_said(self, data, capsys):
        (data / "tinyshakespeare.txt").write_text("abba")
        mine(data, "tinyshakespeare.txt")
        assert cli.main(["data", "fetch", "tiny-shakespeare", "digits"], experiments=()) == 0
        said = capsys.readouterr().out
        assert said.split() == [
            *("tiny-shakespeare:", str(data / "tinyshakespeare.txt")),
            *("digits:", "with", "scikit-learn"),
        ]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("mnist", "cannot be reached"),
            ("timit", "TIMIT is not free"),
            ("spoken-digits", "clone"),
            ("mnits", "unknown data set 'mnits': the data sets are digits, mnist"),
        ],
    )
    def test_what_cannot_be_had_is_one_sentence(self, data, capsys, name, words):
        assert cli.main(["data", "fetch", name], experiments=()) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("rfho: ")
        assert words in said.err
        assert said.err.count("\n") == 1


class TestWhereFilesAreFound:
    def test_the_error_says_what_was_looked_for_where_and_what_to_set(self, data, tmp_path):
        with pytest.raises(datasets.DataNotFoundError) as caught:
            datasets.load_spoken_digits()
        message = str(caught.value)
        for part in ("fsdd_logmel40.npz", str(data), str(tmp_path / "cache"), "set RFHO_DATA"):
            assert part in message
        assert "\n" not in message

    @pytest.mark.parametrize(
        "load",
        [
            datasets.load_mnist,
            datasets.load_fashion_mnist,
            datasets.load_cifar10,
            datasets.load_cifar10_subset,
            datasets.load_newsgroups,
            datasets.load_omniglot,
            datasets.load_tiny_shakespeare,
        ],
    )
    def test_offline_is_one_clear_error(self, data, load, capfd):
        with pytest.raises(datasets.DataNotFoundError, match=r"https://.* cannot be reached"):
            load()
        assert capfd.readouterr() == ("", "")

    def test_a_variable_that_names_no_folder_is_an_error(self, data, monkeypatch):
        monkeypatch.setenv("RFHO_DATA", str(data / "nowhere"))
        with pytest.raises(datasets.DataNotFoundError, match="nowhere' is no folder: set it to"):
            datasets.load_mnist()

    def test_without_the_variable_the_cache_is_looked_in(self, data, tmp_path, monkeypatch):
        monkeypatch.delenv("RFHO_DATA")
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "tinyshakespeare.txt").write_text("abba")
        mine(tmp_path / "cache", "tinyshakespeare.txt")
        assert text.decode(datasets.load_tiny_shakespeare()) == "abba"

    def test_the_users_folder_comes_before_the_cache(self, data, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "tinyshakespeare.txt").write_text("cached")
        (data / "tinyshakespeare.txt").write_text("mine")
        mine(data, "tinyshakespeare.txt")
        assert text.decode(datasets.load_tiny_shakespeare()) == "mine"


class TestChecksums:
    def test_a_file_that_is_found_is_compared_with_the_published_one(self, data):
        (data / "tinyshakespeare.txt").write_text("abba")
        with pytest.raises(datasets.DataFormatError) as caught:
            datasets.load_tiny_shakespeare()
        message = str(caught.value)
        digest = hashlib.sha256(b"abba").hexdigest()
        for part in (
            str(data / "tinyshakespeare.txt"),
            "but the published file has sha256:86c4e6aa",
            f"'{digest}  tinyshakespeare.txt' to {data / 'SHA256SUMS'}",
        ):
            assert part in message
        # The remedy that it names is one.
        (data / "SHA256SUMS").write_text(f"{digest}  tinyshakespeare.txt\n")
        assert text.decode(datasets.load_tiny_shakespeare()) == "abba"

    def test_a_damaged_file_in_the_cache_is_refused(self, data, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "tinyshakespeare.txt").write_text("Firsu Citizen")
        with pytest.raises(datasets.DataFormatError, match="but the published file has sha256:86c"):
            datasets.load_tiny_shakespeare()

    def test_a_file_of_ones_own_that_has_changed_is_refused(self, data):
        np.savez(data / "cifar10_subset.npz", x=np.zeros(3))
        mine(data, "cifar10_subset.npz")
        np.savez(data / "cifar10_subset.npz", x=np.ones(3))
        with pytest.raises(datasets.DataFormatError, match=r"but .*SHA256SUMS says .* renew its"):
            datasets.load_cifar10_subset()

    def test_listed_files_of_a_folder_are_compared_when_the_folder_is_found(self, data):
        (data / "timit").mkdir()
        (data / "timit" / "a.wav").write_bytes(b"a")
        mine(data, "timit/a.wav")
        assert files.find("timit") == data / "timit"
        (data / "timit" / "a.wav").write_bytes(b"b")
        with pytest.raises(datasets.DataFormatError, match=r"a\.wav has the SHA-256 checksum"):
            files.find("timit")

    @pytest.mark.parametrize(
        "line",
        [
            "tinyshakespeare.txt",
            f"{'0' * 63}  tinyshakespeare.txt",
            f"{'0' * 64} tinyshakespeare.txt",
            f"{'0' * 64}  ../tinyshakespeare.txt",
            f"{'0' * 64}  timit/../../secret",
            f"{'0' * 64}  /etc/passwd",
            "\x00",
        ],
    )
    def test_a_list_that_is_none_is_refused_with_its_line(self, data, line):
        (data / "tinyshakespeare.txt").write_text("abba")
        (data / "SHA256SUMS").write_text(f"{'0' * 64}  ./other\n{line}\n")
        with pytest.raises(datasets.DataFormatError, match=r"SHA256SUMS, line 2: .* SHA-256"):
            datasets.load_tiny_shakespeare()

    def test_what_is_no_file_is_refused(self, data):
        (data / "tinyshakespeare.txt").mkdir()
        with pytest.raises(datasets.DataFormatError, match=r"tinyshakespeare\.txt is no file"):
            datasets.load_tiny_shakespeare()


class TestDownloads:
    @pytest.fixture
    def server(self, tmp_path):
        """The address of a server of one file, ``file.bin`` with the content b"content"."""
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / "file.bin").write_bytes(b"content")
        handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    def test_a_download_is_kept(self, data, server, capfd):
        home = files.Home(f"{server}/file.bin", "md5:9a0364b9e99bb480dd25e1f0284c8555")
        path = files.locate("some/file.bin", home=home)
        assert path == files.cache_folder() / "some" / "file.bin"
        assert path.read_bytes() == b"content"
        unreachable = files.Home("http://127.0.0.1:9/file.bin", home.checksum)
        assert files.locate("some/file.bin", home=unreachable) == path
        assert capfd.readouterr() == ("", "")

    def test_another_checksum_is_refused_and_nothing_is_kept(self, data, server):
        home = files.Home(f"{server}/file.bin", f"sha256:{'0' * 64}")
        with pytest.raises(datasets.DataNotFoundError, match="whose checksum is not sha256:000"):
            files.locate("file.bin", home=home)
        assert files.find("file.bin") is None

    def test_a_file_that_is_gone_is_an_error(self, data, server):
        home = files.Home(f"{server}/gone.bin", f"sha256:{'0' * 64}")
        with pytest.raises(datasets.DataNotFoundError, match=r"gone\.bin cannot be reached"):
            files.locate("gone.bin", home=home)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


class TestNpz:
    def test_a_pickle_is_never_read(self, tmp_path):
        path = tmp_path / "evil.npz"
        np.savez(path, x=np.array([{}], dtype=object))
        with pytest.raises(datasets.DataFormatError, match=r"evil\.npz .*pickle"):
            base.read_arrays(path, "x")

    def test_a_missing_array_is_named(self, tmp_path):
        path = tmp_path / "some.npz"
        np.savez(path, x=np.zeros(3))
        with pytest.raises(datasets.DataFormatError, match=r"no array 'y', only \['x'\]"):
            base.read_arrays(path, "x", "y")

    @pytest.mark.parametrize("keep", [0, 10, 300])
    def test_a_truncated_file_is_refused(self, tmp_path, keep):
        path = tmp_path / "some.npz"
        np.savez(path, x=np.zeros(300))
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(datasets.DataFormatError, match=r"some\.npz is no zip or npz file"):
            base.read_arrays(path, "x")

    def test_a_file_with_a_hole_is_refused(self, tmp_path):
        path = tmp_path / "some.npz"
        np.savez_compressed(path, x=BYTES.normal(size=300))
        content = bytearray(path.read_bytes())
        content[400:800] = bytes(400)
        path.write_bytes(content)
        with pytest.raises(datasets.DataFormatError, match=r"some\.npz .* damaged"):
            base.read_arrays(path, "x")

    def test_a_single_array_is_no_archive(self, tmp_path):
        np.save(tmp_path / "some.npy", np.zeros(3))
        with pytest.raises(datasets.DataFormatError, match="is no zip or npz file"):
            base.read_arrays(tmp_path / "some.npy", "x")


class TestCifar10:
    def records(self, count: int) -> cifar10.Records:
        pixels = BYTES.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return cifar10.Records(pixels, (np.arange(count) % 10).astype(np.uint8))

    def encoded(self, records: cifar10.Records) -> bytes:
        planes = records.pixels.transpose(0, 3, 1, 2).reshape(len(records.labels), -1)
        return np.concatenate([records.labels[:, None], planes], axis=1).tobytes()

    def test_a_batch_is_read_exactly(self):
        records = self.records(3)
        decoded = cifar10.decode_batch(self.encoded(records), records=3, source="batch")
        np.testing.assert_array_equal(decoded.pixels, records.pixels)
        np.testing.assert_array_equal(decoded.labels, records.labels)

    @pytest.mark.parametrize("missing", [1, 3073])
    def test_a_truncated_batch_is_refused(self, missing):
        content = self.encoded(self.records(3))[:-missing]
        with pytest.raises(datasets.DataFormatError, match=r"batch has .* 3 records of 3073 bytes"):
            cifar10.decode_batch(content, records=3, source="batch")

    @pytest.mark.parametrize("archived", [False, True])
    def test_folder_and_archive_hold_the_same(self, tmp_path, archived):
        folder = tmp_path / "cifar-10-batches-bin"
        folder.mkdir()
        batches = [self.records(2) for _ in range(6)]
        names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
        for name, batch in zip(names, batches, strict=True):
            (folder / name).write_bytes(self.encoded(batch))
        if archived:
            with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as archive:
                archive.add(folder, folder.name)
            train, test = cifar10.read_archive(tmp_path / "archive.tar.gz", records=2)
        else:
            train, test = cifar10.read_batches(folder, records=2)
        expected = np.concatenate([batch.pixels for batch in batches[:5]])
        np.testing.assert_array_equal(train.pixels, expected)
        np.testing.assert_array_equal(test.pixels, batches[5].pixels)
        np.testing.assert_array_equal(test.labels, batches[5].labels)

    def test_a_truncated_archive_is_refused(self, tmp_path):
        path = tmp_path / "archive.tar.gz"
        path.write_bytes(gzip.compress(bytes(20_000))[:-10])
        with pytest.raises(datasets.DataFormatError, match=r"archive\.tar\.gz .* damaged"):
            cifar10.read_archive(path, records=2)

    def test_the_subset_file_is_read_exactly(self, data):
        train, test = self.records(20), self.records(10)
        np.savez(
            data / "cifar10_subset.npz",
            x_train=train.pixels,
            y_train=train.labels,
            x_test=test.pixels,
            y_test=test.labels,
        )
        for part, records in zip(datasets.load_cifar10_subset(), (train, test), strict=True):
            np.testing.assert_array_equal(part.images, records.pixels / np.float32(255))
            np.testing.assert_array_equal(part.labels, records.labels)

    def test_the_subset_is_the_first_of_each_class_in_the_original_order(self):
        records = self.records(40)
        subset = cifar10.first_of_each(records, 2)
        np.testing.assert_array_equal(subset.labels, np.tile(np.arange(10), 2))
        np.testing.assert_array_equal(subset.pixels, records.pixels[:20])

    def test_pictures_of_another_size_are_refused(self, data):
        x, y = np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8)
        np.savez(data / "cifar10_subset.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        with pytest.raises(
            datasets.DataFormatError, match=r"\(1, 28, 28\), not \(train, 32, 32, 3\)"
        ):
            datasets.load_cifar10_subset()


class TestNewsgroups:
    def test_counts_and_labels_are_read_exactly(self, data):
        counts = sp.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], dtype=np.int16))
        sp.save_npz(data / "news20_counts_train.npz", counts)
        sp.save_npz(data / "news20_counts_test.npz", counts[:1])
        labels = {"y_train": np.array([1, 0], np.uint8), "y_test": np.array([0], np.uint8)}
        np.savez(data / "news20_labels.npz", **labels, group_names=np.array(["a", "b"]))
        news = datasets.load_newsgroups()
        np.testing.assert_array_equal(news.train_counts.toarray(), counts.toarray())
        np.testing.assert_array_equal(news.test_counts.toarray(), counts[:1].toarray())
        assert news.train_labels.tolist() == [1, 0]
        assert news.group_names == ("a", "b")

    def test_counts_that_do_not_fit_the_labels_are_refused(self, data):
        counts = sp.csr_matrix(np.eye(3, dtype=np.int16))
        sp.save_npz(data / "news20_counts_train.npz", counts)
        sp.save_npz(data / "news20_counts_test.npz", counts)
        two = np.zeros(2, np.uint8)
        np.savez(data / "news20_labels.npz", y_train=two, y_test=two, group_names=np.array(["a"]))
        with pytest.raises(datasets.DataFormatError, match="do not belong to 2 training"):
            datasets.load_newsgroups()

    def test_damaged_counts_are_refused(self, data):
        for part in ("train", "test"):
            (data / f"news20_counts_{part}.npz").write_bytes(b"PK")
        empty = np.zeros(0, np.uint8)
        names = np.array([], dtype="U1")
        np.savez(data / "news20_labels.npz", y_train=empty, y_test=empty, group_names=names)
        with pytest.raises(datasets.DataFormatError, match=r"news20_counts_train\.npz .* damaged"):
            datasets.load_newsgroups()

    def test_words_are_counted_in_the_archive_of_messages(self, tmp_path):
        messages = {
            "20news-bydate-train/sci.space/200": b"Moon moon caf\xe9",
            "20news-bydate-train/alt.atheism/9": b"belief",
            "20news-bydate-test/sci.space/1": b"moon unseen",
        }
        path = tmp_path / "20news-bydate.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, content in messages.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        news = newsgroups.count_words(path)
        assert news.group_names == ("alt.atheism", "sci.space")
        assert news.train_labels.tolist() == [0, 1]
        # The columns are belief, café, moon.
        np.testing.assert_array_equal(news.train_counts.toarray(), [[1, 0, 0], [0, 1, 2]])
        np.testing.assert_array_equal(news.test_counts.toarray(), [[0, 0, 1]])

    def test_tf_idf_is_the_one_of_scikit_learn(self):
        from sklearn.feature_extraction.text import TfidfTransformer

        train = sp.csr_array(BYTES.poisson(0.7, (30, 12)))
        test = sp.csr_array(BYTES.poisson(0.7, (10, 12)))
        theirs = TfidfTransformer().fit(train)
        ours = datasets.tf_idf(train, test)
        np.testing.assert_allclose(ours.train.toarray(), theirs.transform(train).toarray())
        np.testing.assert_allclose(ours.test.toarray(), theirs.transform(test).toarray())

    def test_a_document_without_words_stays_zero(self):
        weighted = datasets.tf_idf(sp.csr_array(np.array([[1, 2], [0, 0]])), sp.csr_array((1, 2)))
        np.testing.assert_array_equal(weighted.train.toarray()[1], [0, 0])


class TestOmniglot:
    def test_the_reduced_file_is_read_exactly(self, data):
        bits = BYTES.integers(0, 2, (3, 20, 28, 28), dtype=np.uint8)
        np.savez(
            data / "omniglot_28x28_bits.npz",
            images=np.packbits(bits.reshape(3, 20, 784), axis=2),
            alphabet=np.array([0, 0, 1], np.uint8),
            character=np.array([1, 2, 1], np.uint8),
            evaluation=np.array([False, False, True]),
            alphabet_names=np.array(["Greek", "ULOG"]),
        )
        read = datasets.load_omniglot()
        np.testing.assert_array_equal(read.images, bits)
        assert read.images.dtype == np.float32
        assert read.alphabet.tolist() == [0, 0, 1]
        assert read.alphabet_names == ("Greek", "ULOG")

    def test_other_shapes_are_refused(self, data):
        zeros = np.zeros(3, np.uint8)
        np.savez(
            data / "omniglot_28x28_bits.npz",
            images=np.zeros((3, 20, 97), np.uint8),
            alphabet=zeros,
            character=zeros,
            evaluation=zeros,
            alphabet_names=np.array(["Greek"]),
        )
        with pytest.raises(datasets.DataFormatError, match=r"\(3, 20, 97\)"):
            datasets.load_omniglot()

    def write_archive(self, path: Path, alphabet: str, drawings: int = 20) -> None:
        """One character whose j-th drawing is black in the first j + 1 rows."""
        with zipfile.ZipFile(path, "w") as archive:
            for drawer in range(drawings):
                pixels = np.full((105, 105), 255, np.uint8)
                pixels[: drawer + 1] = 0
                stream = io.BytesIO()
                Image.fromarray(pixels).convert("1").save(stream, "PNG")
                name = f"{path.stem}/{alphabet}/character07/0007_{drawer + 1:02d}.png"
                archive.writestr(name, stream.getvalue())

    def test_drawings_are_reduced_from_the_archives(self, tmp_path):
        paths = (tmp_path / "images_background.zip", tmp_path / "images_evaluation.zip")
        for path, alphabet in zip(paths, ("Greek", "Angelic"), strict=True):
            self.write_archive(path, alphabet)
        read = omniglot.read_archives(*paths)
        assert read.images.shape == (2, 20, 28, 28)
        assert read.alphabet_names == ("Greek", "Angelic")
        assert read.character.tolist() == [7, 7]
        assert read.evaluation.tolist() == [False, True]
        # A cell is 3.75 rows high: the first two hold the centres of four rows each, and of four
        # rows two must be black for ink.
        ink = read.images[0, :, :, 0].sum(axis=1)
        assert ink.tolist()[:6] == [0, 1, 1, 1, 1, 2]
        assert np.all(read.images == read.images[..., :1])

    def test_a_character_needs_twenty_drawings(self, tmp_path):
        path = tmp_path / "images_background.zip"
        self.write_archive(path, "Greek", drawings=19)
        with pytest.raises(
            datasets.DataFormatError, match="19 drawings of character 7 of Greek, not 20"
        ):
            omniglot.read_archives(path, path)

    def test_a_truncated_archive_is_refused(self, tmp_path):
        path = tmp_path / "images_background.zip"
        self.write_archive(path, "Greek")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(datasets.DataFormatError, match=r"images_background\.zip .* damaged"):
            omniglot.read_archives(path, path)


class TestSpokenDigits:
    def test_frames_are_read_exactly(self, data):
        frames = BYTES.normal(size=(5, 40)).astype(np.float16)
        np.savez(
            data / "fsdd_logmel40.npz",
            frames=frames,
            offsets=np.array([0, 3, 5], np.int32),
            digit=np.array([7, 1], np.uint8),
            speaker=np.array([0, 1], np.uint8),
            take=np.array([0, 9], np.uint8),
            test=np.array([True, False]),
            speaker_names=np.array(["george", "theo"]),
        )
        spoken = datasets.load_spoken_digits()
        np.testing.assert_array_equal(spoken.frames, frames.astype(np.float32))
        assert datasets.frame_values(spoken.offsets, spoken.digit).tolist() == [7, 7, 7, 1, 1]
        assert spoken.speaker_names == ("george", "theo")

    @pytest.mark.parametrize("offsets", [[0, 3, 4], [1, 3, 5], [0, 5, 3, 5], [0, 3, 3, 5], [5]])
    def test_offsets_that_do_not_fit_are_refused(self, offsets):
        with pytest.raises(datasets.DataFormatError, match=r"do not rise from 0 to .* 5"):
            datasets.context_windows(np.zeros((5, 2)), np.array(offsets), radius=1)

    @given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), radius=st.integers(0, 8))
    def test_a_window_stays_in_its_recording(self, lengths, radius):
        offsets = np.cumsum([0, *lengths])
        recording = np.repeat(np.arange(len(lengths)), lengths)
        frames = np.stack([np.arange(len(recording)), recording], axis=1).astype(np.float64)
        windows = datasets.context_windows(frames, offsets, radius=radius)
        windows = windows.reshape(len(frames), 2 * radius + 1, 2)
        np.testing.assert_array_equal(windows[:, radius], frames)
        assert np.all(windows[:, :, 1] == recording[:, None])
        for shift in range(-radius, radius + 1):
            wanted = np.clip(
                np.arange(len(frames)) + shift, offsets[recording], offsets[recording + 1] - 1
            )
            np.testing.assert_array_equal(windows[:, radius + shift, 0], wanted)

    def write_sound(self, path: Path, samples: np.ndarray, *, rate: int = 8000) -> None:
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, rate, len(samples), "NONE", ""))
            sound.writeframes((samples * 32767).astype("<i2").tobytes())

    def test_recordings_become_frames_sorted_by_speaker_digit_and_take(self, data):
        folder = data / "free-spoken-digit-dataset" / "recordings"
        folder.mkdir(parents=True)
        noise = BYTES.uniform(-0.5, 0.5, 1000)
        for name, length in (("3_theo_10", 1000), ("3_theo_2", 360), ("0_jackson_4", 200)):
            self.write_sound(folder / f"{name}.wav", noise[:length])
        spoken = datasets.load_spoken_digits()
        assert spoken.speaker_names == ("jackson", "theo")
        assert spoken.speaker.tolist() == [0, 1, 1]
        assert spoken.take.tolist() == [4, 2, 10]
        assert spoken.test.tolist() == [True, True, False]
        assert spoken.offsets.tolist() == [0, 1, 4, 15]  # 1 + (n - 200) // 80 frames each

    def test_a_tone_is_loudest_in_the_band_of_its_pitch(self):
        time = np.arange(2000) / 8000
        corners = 700 * (10 ** (np.linspace(31.75, 2146.07, 42) / 2595) - 1)
        for band in (8, 20, 32):
            frames = spoken_digits.log_mel(np.sin(2 * np.pi * corners[band + 1] * time))
            assert np.all(frames.argmax(axis=1) == band)

    def test_silence_is_the_logarithm_of_the_floor(self):
        np.testing.assert_allclose(spoken_digits.log_mel(np.zeros(200)), np.log(1e-9))

    def test_a_recording_at_another_rate_is_refused(self, tmp_path):
        self.write_sound(tmp_path / "0_theo_0.wav", np.zeros(400), rate=16000)
        with pytest.raises(datasets.DataFormatError, match="16000 Hz, not one of 16 bits at 8000"):
            spoken_digits.read_recordings(tmp_path)


class TestText:
    @given(st.text(alphabet=st.characters(codec="ascii"), min_size=1))
    def test_decoding_is_the_inverse_of_encoding(self, string):
        encoded = text.encode(string)
        assert text.decode(encoded) == string
        assert list(encoded.alphabet) == sorted(set(string))

    def test_what_is_not_text_is_refused(self, data):
        (data / "tinyshakespeare.txt").write_bytes(b"\x89PNG")
        mine(data, "tinyshakespeare.txt")
        with pytest.raises(datasets.DataFormatError, match="not ASCII text"):
            datasets.load_tiny_shakespeare()


class TestDigits:
    def test_always_there(self):
        images, labels, names = datasets.load_digits()
        assert images.shape == (1797, 8, 8)
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
        counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert np.bincount(labels).tolist() == counts
        assert names == tuple("0123456789")


labels_and_seed = given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array),
    seed=st.integers(0, 2**32 - 1),
    draw=st.data(),
)


class TestSplits:
    @labels_and_seed
    def test_flipped_labels_are_of_another_class_and_the_others_unchanged(self, labels, seed, draw):
        count = draw.draw(st.integers(0, len(labels)))
        before = labels.copy()
        flipped, mask = datasets.flip_labels(labels, count, classes=5, seed=seed)
        assert mask.sum() == count
        np.testing.assert_array_equal(flipped != labels, mask)
        assert set(flipped) <= set(range(5))
        np.testing.assert_array_equal(labels, before)
        again = datasets.flip_labels(labels, count, classes=5, seed=seed)
        np.testing.assert_array_equal(again.labels, flipped)

    def test_every_other_class_is_equally_likely(self):
        labels = np.full(40_000, 2)
        flipped, _ = datasets.flip_labels(labels, 40_000, classes=5, seed=0)
        counts = np.bincount(flipped, minlength=5)
        assert counts[2] == 0
        assert np.all(np.abs(counts[[0, 1, 3, 4]] - 10_000) < 450)  # five standard deviations

    @pytest.mark.parametrize(
        ("count", "classes", "message"),
        [(4, 3, "count = 4"), (-1, 3, "count = -1"), (1, 1, "classes = 1"), (1, 2, "not 0..1")],
    )
    def test_flips_that_cannot_be_are_refused(self, count, classes, message):
        with pytest.raises(ValueError, match=message):
            datasets.flip_labels(np.array([0, 1, 2]), count, classes=classes, seed=0)

    @labels_and_seed
    def test_a_balanced_subset_has_each_class_equally_often(self, labels, seed, draw):
        present, available = np.unique(labels, return_counts=True)
        size = draw.draw(st.integers(1, int(available.min()) * len(present)))
        chosen = datasets.balanced_subset(labels, size, seed=seed)
        assert len(chosen) == len(set(chosen)) == size
        counts = [np.sum(labels[chosen] == label) for label in present]
        assert max(counts) - min(counts) <= 1
        np.testing.assert_array_equal(chosen, datasets.balanced_subset(labels, size, seed=seed))

    def test_too_few_examples_of_a_class_are_named(self):
        with pytest.raises(ValueError, match="class 1 has 1 examples, but 2 are wanted"):
            datasets.balanced_subset(np.array([0, 0, 0, 1]), 4, seed=0)

    @given(sizes=st.lists(st.integers(0, 9), max_size=4), rest=st.integers(0, 9))
    def test_the_parts_of_a_split_are_disjoint(self, sizes, rest):
        parts = datasets.random_split(sum(sizes) + rest, sizes, seed=3)
        assert [len(part) for part in parts] == sizes
        joined = [position for part in parts for position in part]
        assert len(set(joined)) == len(joined)
        assert set(joined) <= set(range(sum(sizes) + rest))

    def test_another_seed_is_another_split(self):
        first, second = (datasets.random_split(100, (50,), seed=seed)[0] for seed in (0, 1))
        assert set(first) != set(second)

    @pytest.mark.parametrize("sizes", [(6, 5), (-1, 3)])
    def test_parts_that_do_not_fit_are_refused(self, sizes):
        with pytest.raises(ValueError, match="there are 10 examples"):
            datasets.random_split(10, sizes, seed=0)


@pytest.fixture
def real():
    """Skips unless RFHO_DATA holds the file that a test asks for."""

    def needs(name: str) -> None:
        folder = os.environ.get("RFHO_DATA")
        if not folder:
            pytest.skip("RFHO_DATA is not set: it names the folder of data files")
        if not (Path(folder) / name).exists():
            pytest.skip(f"RFHO_DATA holds no {name}")

    return needs


class TestRealFiles:
    def test_mnist(self, real):
        real("mnist")
        train, test = datasets.load_mnist()
        assert train.images.shape == (60_000, 28, 28)
        assert test.images.shape == (10_000, 28, 28)
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(train.labels).tolist() == counts
        counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert np.bincount(test.labels).tolist() == counts
        assert abs(train.images.mean() - 0.1307) < 1e-4  # the published mean

    def test_cifar10_subset(self, real):
        real("cifar10_subset.npz")
        train, test = datasets.load_cifar10_subset()
        assert train.images.shape == (4000, 32, 32, 3)
        assert np.bincount(train.labels).tolist() == [400] * 10
        counts = [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
        assert np.bincount(test.labels).tolist() == counts
        assert train.labels[0] == 6
        np.testing.assert_allclose(train.images[0, 0, 0] * 255, (59, 62, 63), rtol=1e-6)
        np.testing.assert_allclose(test.images[0, 0, 0] * 255, (158, 112, 49), rtol=1e-6)

    def test_newsgroups(self, real):
        real("news20_labels.npz")
        news = datasets.load_newsgroups()
        assert news.train_counts.shape == (11_314, 130_107)
        assert news.test_counts.shape == (7_532, 130_107)
        assert (news.train_counts.nnz, news.test_counts.nnz) == (1_787_565, 1_107_956)
        assert np.bincount(news.train_labels).tolist()[:4] == [480, 584, 591, 590]
        weighted = datasets.tf_idf(news.train_counts, news.test_counts)
        np.testing.assert_allclose(weighted.test.power(2).sum(axis=1), 1)

    def test_omniglot(self, real):
        real("omniglot_28x28_bits.npz")
        drawings = datasets.load_omniglot()
        assert drawings.images.shape == (1623, 20, 28, 28)
        assert set(np.unique(drawings.images)) == {0, 1}
        assert len(drawings.alphabet_names) == 50
        assert np.bincount(drawings.evaluation).tolist() == [964, 659]

    def test_spoken_digits(self, real):
        real("fsdd_logmel40.npz")
        spoken = datasets.load_spoken_digits()
        assert spoken.frames.shape == (125_237, 40)
        assert np.bincount(spoken.digit).tolist() == [300] * 10
        assert np.bincount(spoken.speaker).tolist() == [500] * 6
        assert datasets.frame_values(spoken.offsets, spoken.test).sum() == 12_326
        windows = datasets.context_windows(spoken.frames[:100], np.array([0, 100]), radius=5)
        assert windows.shape == (100, 440)

    def test_tiny_shakespeare(self, real):
        real("tinyshakespeare.txt")
        codes, alphabet = datasets.load_tiny_shakespeare()
        assert codes.shape == (1_115_394,)
        assert len(alphabet) == 65
        assert text.decode(text.Text(codes[:13], alphabet)) == "First Citizen"
