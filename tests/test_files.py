"""Files: written whole or not at all under every fault; names that stay inside; JSON by a schema."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from disk_faults import CALLS, ERRORS, Faults, count, file_limit, filled, small_disk
from hypothesis import given
from hypothesis import strategies as st
from killed import kill_again_and_again
from power_loss import every_disk

from rfho.errors import DataFormatError, WriteError
from rfho.files import append_line, durable, from_json, inside, make_folder, read_json, write_file

OLD, NEW = b"old" * 1000, b"new" * 5000


def old_or_new(folder: Path) -> None:
    assert (folder / "a").read_bytes() in (OLD, NEW)


def is_new(folder: Path) -> None:
    assert (folder / "a").read_bytes() == NEW


def ignored(_: object) -> None:
    """Does nothing."""


def copied(source: Path, target: Path) -> None:
    """What writing in place does."""
    file = os.open(target, os.O_WRONLY | os.O_TRUNC)
    os.write(file, source.read_bytes())
    os.fsync(file)
    os.close(file)
    os.unlink(source)


class TestWholeOrNotAtAll:
    def test_the_parts_one_after_the_other(self, tmp_path):
        write_file(tmp_path / "a", b"one", memoryview(b"two"))
        assert (tmp_path / "a").read_bytes() == b"onetwo"
        assert os.listdir(tmp_path) == ["a"]

    @pytest.mark.parametrize("number", ERRORS)
    @pytest.mark.parametrize("call", CALLS)
    def test_every_fault_leaves_the_old_or_the_new_and_nothing_else(self, tmp_path, call, number):
        path = tmp_path / "a"
        times = count(tmp_path, call, lambda: write_file(path, NEW, NEW))
        assert times > 0 or call == "ftruncate"
        for at in range(times):
            write_file(path, OLD)
            with Faults(tmp_path, call, at, number).on() as faults:
                with pytest.raises(WriteError, match="a could not be written") as caught:
                    write_file(path, NEW, NEW)
                assert faults.reached
            assert caught.value.errno == number
            assert path.read_bytes() in (OLD, NEW + NEW)
            assert os.listdir(tmp_path) == ["a"]

    def test_a_system_that_writes_little_at_a_time(self, tmp_path, monkeypatch):
        true = os.write
        monkeypatch.setattr(os, "write", lambda file, content: true(file, content[:7]))
        write_file(tmp_path / "a", OLD)
        assert (tmp_path / "a").read_bytes() == OLD

    def test_a_full_disk(self, tmp_path):
        with small_disk(tmp_path / "disk", "64k") as disk:
            write_file(disk / "a", OLD)
            with pytest.raises(WriteError, match="No space left on device"):
                write_file(disk / "a", bytes(100_000))
            assert (disk / "a").read_bytes() == OLD
            assert os.listdir(disk) == ["a"]
            filled(disk)
            with pytest.raises(WriteError, match="No space left on device"):
                append_line(disk / "a", "x" * 5000)
            assert (disk / "a").read_bytes() == b""  # its one line without an end is cut off

    def test_a_disk_that_is_only_read(self, tmp_path):
        with small_disk(tmp_path / "disk", "64k") as disk:
            write_file(disk / "a", OLD)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            with pytest.raises(WriteError, match="Read-only file system"):
                write_file(disk / "a", NEW)
            assert (disk / "a").read_bytes() == OLD

    def test_a_limit_on_the_size_of_files(self, tmp_path):
        write_file(tmp_path / "a", OLD)
        with file_limit(10_000), pytest.raises(WriteError, match="File too large"):
            write_file(tmp_path / "a", NEW)
        assert (tmp_path / "a").read_bytes() == OLD
        assert os.listdir(tmp_path) == ["a"]

    def test_a_link_in_its_place_is_replaced_and_not_followed(self, tmp_path):
        (tmp_path / "secret").write_bytes(OLD)
        (tmp_path / "a").symlink_to(tmp_path / "secret")
        write_file(tmp_path / "a", NEW)
        assert (tmp_path / "secret").read_bytes() == OLD
        assert not (tmp_path / "a").is_symlink()

    def test_ctrl_c_leaves_nothing_behind(self, tmp_path, monkeypatch):
        write_file(tmp_path / "a", OLD)

        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_file(tmp_path / "a", NEW)
        assert (tmp_path / "a").read_bytes() == OLD
        assert os.listdir(tmp_path) == ["a"]

    def test_after_a_power_failure_the_old_or_the_new_is_there(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        write_file(folder / "a", OLD)
        found = set()

        def check(copy: Path) -> None:
            found.add((copy / "a").read_bytes())

        def action() -> None:
            write_file(folder / "a", NEW)

        assert every_disk(folder, action, check, lasting=is_new) >= 4
        assert found == {OLD, NEW}

    @pytest.mark.parametrize("left_out", ["fsync", "replace", "sync_folder"])
    def test_the_power_failure_would_show_what_is_left_out(self, tmp_path, left_out):
        folder = tmp_path / "folder"
        folder.mkdir()
        write_file(folder / "a", OLD)
        instead = {"fsync": ignored, "replace": copied, "sync_folder": ignored}[left_out]

        def action() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(durable if left_out == "sync_folder" else os, left_out, instead)
                write_file(folder / "a", NEW)

        with pytest.raises(AssertionError):
            every_disk(folder, action, old_or_new, lasting=is_new)

    def test_killed_at_any_moment_it_is_whole(self, tmp_path):
        kill_again_and_again("killed_writer:write", tmp_path, 50, longest=0.05)

    @pytest.mark.soak
    def test_killed_a_thousand_times_it_is_whole(self, tmp_path):
        kill_again_and_again("killed_writer:write", tmp_path, 1000, longest=0.05)


class TestLines:
    @pytest.mark.parametrize("number", ERRORS)
    @pytest.mark.parametrize("call", ["open", "write"])
    def test_a_fault_leaves_the_lines_before(self, tmp_path, call, number):
        path = tmp_path / "lines"
        append_line(path, "one")
        with Faults(tmp_path, call, 0, number).on() as faults:
            with pytest.raises(WriteError, match="lines could not be written"):
                append_line(path, "two" * 100)
            assert faults.reached
        assert path.read_text() == "one\n"
        append_line(path, "three")
        assert path.read_text() == "one\nthree\n"

    @given(st.lists(st.integers(0, 9000), max_size=4), st.integers(1, 9000))
    def test_a_line_without_an_end_is_cut_off_before_the_next(self, lengths, torn):
        path = Path(self.folder) / "lines"
        whole = "".join("x" * length + "\n" for length in lengths)
        path.write_text(whole + "y" * torn)
        append_line(path, "z")
        assert path.read_text() == whole + "z\n"

    @pytest.fixture(autouse=True)
    def in_a_folder(self, tmp_path):
        self.folder = tmp_path

    def test_a_link_is_not_followed(self, tmp_path):
        (tmp_path / "lines").symlink_to(tmp_path / "secret")
        with pytest.raises(WriteError, match="symbolic links"):
            append_line(tmp_path / "lines", "x")
        assert not (tmp_path / "secret").exists()


class TestFolders:
    def test_with_those_above(self, tmp_path):
        make_folder(tmp_path / "a" / "b")
        make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()

    def test_what_is_in_the_way_is_named(self, tmp_path):
        (tmp_path / "a").touch()
        with pytest.raises(WriteError, match="b could not be written"):
            make_folder(tmp_path / "a" / "b")


class TestInside:
    def test_a_plain_name_leads_into_the_folder(self, tmp_path):
        assert inside(tmp_path, "tables", "a.json") == tmp_path / "tables" / "a.json"

    @pytest.mark.parametrize(
        "name", ["..", ".", "", "/etc/passwd", "a/b", "../a", "a\\b", "a\0", "C:a", "x" * 201, "\n"]
    )
    def test_no_other_name_is_followed(self, tmp_path, name):
        with pytest.raises(DataFormatError, match="only names of files in it are followed"):
            inside(tmp_path, name)
        with pytest.raises(DataFormatError, match="only names of files in it are followed"):
            inside(tmp_path, "tables", name)

    @pytest.mark.parametrize("target", ["../secret", "secret", "nowhere"])
    def test_no_link_is_followed(self, tmp_path, target):
        folder = tmp_path / "run"
        folder.mkdir()
        (tmp_path / "secret").touch()
        (folder / "a").symlink_to(target)
        with pytest.raises(DataFormatError, match="is a link or no file"):
            inside(folder, "a")
        with pytest.raises(DataFormatError, match="is a link or no file"):
            inside(folder, "a", "b")

    def test_no_pipe_is_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a")
        with pytest.raises(DataFormatError, match="is a link or no file"):
            inside(tmp_path, "a")

    def test_the_folder_itself_may_be_a_link(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "latest").symlink_to("run")
        assert inside(tmp_path / "latest", "a") == tmp_path / "latest" / "a"


class Inner(NamedTuple):
    name: str
    sizes: tuple[int, ...] = ()


class Outer(NamedTuple):
    inner: Inner
    seconds: float | None
    versions: dict[str, str]
    done: bool = False


RIGHT = {"inner": {"name": "a", "sizes": [1, 2]}, "seconds": 1, "versions": {"jax": "0.10"}}


class TestSchema:
    def test_what_fits_is_made_of_it(self, tmp_path):
        (tmp_path / "a.json").write_text(json.dumps(RIGHT))
        read = read_json(tmp_path / "a.json", Outer)
        assert read == Outer(Inner("a", (1, 2)), 1.0, {"jax": "0.10"})
        assert isinstance(read.seconds, float)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"inner": None},
                "inner is null, where a record with the keys name, sizes was expected",
            ),
            ({"inner": {"name": 3}}, "inner.name is 3, where str was expected"),
            ({"inner": {}}, "inner is an object with the keys none, where a record"),
            ({"inner": {"name": "a", "sizes": [1, "2"]}}, r'inner.sizes\[1\] is "2", where int'),
            ({"inner": {"name": "a", "sizes": [True]}}, r"inner.sizes\[0\] is true, where int"),
            ({"seconds": "1"}, r'seconds is "1", where float \| None was expected'),
            ({"seconds": True}, "seconds is true"),
            ({"seconds": 10**400}, "seconds is 1000.*…, where float"),
            ({"versions": []}, r"versions is a list of 0, where dict\[str, str\] was expected"),
            ({"versions": {"jax": 1}}, r"versions\['jax'\] is 1, where str"),
            ({"done": 1}, "done is 1, where bool was expected"),
            (
                {"more": 1},
                "it is an object with the keys done, inner, m|it is an object with the keys inner, more",
            ),
            ({"inner": {"name": "\ud800"}}, r'inner.name is "\\ud800", where str'),
        ],
    )
    def test_what_does_not_is_named_with_its_place(self, tmp_path, change, said):
        path = tmp_path / "a.json"
        with pytest.raises(DataFormatError, match=said) as caught:
            from_json(json.dumps(RIGHT | change), Outer, path=path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{",
            b"\xff",
            b'{"done": NaN}',
            b'{"done": 1e999}',
            b'{"done": Infinity}',
            b'{"done": true, "done": false}',
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"9" * 10_000,
            b'{"\\ud800": 1}',
            b"null",
            b"[]",
            b"\xef\xbb\xbf{}",
        ],
    )
    def test_what_is_no_such_json_is_refused(self, tmp_path, text):
        (tmp_path / "a.json").write_bytes(text)
        with pytest.raises(DataFormatError, match=r"a\.json") as caught:
            read_json(tmp_path / "a.json", Outer)
        assert len(str(caught.value)) < 500

    def test_a_large_file_is_not_read(self, tmp_path):
        (tmp_path / "a.json").write_bytes(b" " * 2**21)
        with pytest.raises(DataFormatError, match="more than 1048576 bytes"):
            read_json(tmp_path / "a.json", Outer)
