"""Run folders survive: kills, full disks, damage, strangers, and several processes at once."""

import contextlib
import datetime
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from disk_faults import CALLS, ERRORS, Faults, count, file_limit, filled, small_disk
from fake_experiment import FAKE, FakeSettings
from killed import TESTS, kill_again_and_again
from mutations import DAMAGES, damaged
from rich.console import Console

from rfho.cli import main
from rfho.errors import DataFormatError, WriteError
from rfho.runs import owner
from rfho.runs.about import FAILED, RUNNING, read_about
from rfho.runs.experiment import Experiment, execute
from rfho.runs.owner import RunFolderError, claim, is_alive, read_owner
from rfho.runs.run_folder import RunFolder, create_run_folder

SECRET = "do not tell anybody"


def said(*arguments: str, experiments: tuple[Experiment, ...] = ()) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(list(arguments), experiments)
    return code, output.getvalue(), errors.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the folder of a finished run holds, by name."""
    made = create_run_folder("fake", tmp_path_factory.mktemp("runs") / "run")
    execute(FAKE, FakeSettings(), made, command="rfho run fake", console=Console(quiet=True))
    return {
        path.relative_to(made.path): path.read_bytes()
        for path in made.path.rglob("*")
        if path.is_file() and path.name != "report.html"
    }


def written(files: dict[Path, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


class TestDamage:
    """`rfho report` on a folder that is damaged or hostile: a page, or one line and exit code 2."""

    def look(self, files, folder: Path, seeds: range) -> None:
        written(files, folder)
        (folder.parent / "secret").write_text(SECRET)
        names = [name for name in sorted(files) if name.suffix != ".md"]
        for seed in seeds:
            name = names[(seed // len(DAMAGES)) % len(names)]
            (folder / name).write_bytes(damaged(files[name], seed) if files[name] else b"?")
            self.tell(folder, f"{name}, {seed}")
            (folder / name).write_bytes(files[name])

    def tell(self, folder: Path, what: str) -> str:
        """What the report says, or what the line on stderr does."""
        around = sorted(folder.parent.iterdir())
        code, _, errors = said("report", str(folder))
        assert code in (0, 2), what
        assert errors.count("\n") == (code == 2), what
        assert "Traceback" not in errors, what
        assert sorted(folder.parent.iterdir()) == around, what
        page = folder / "report.html"
        told = page.read_text(encoding="utf-8") if code == 0 else errors
        page.unlink(missing_ok=True)
        assert SECRET not in told, what
        return told

    def test_hundreds_of_damaged_folders(self, files, tmp_path):
        self.look(files, tmp_path / "run", range(30 * len(DAMAGES)))

    @pytest.mark.soak
    def test_ten_thousand_damaged_folders(self, files, tmp_path):
        self.look(files, tmp_path / "run", range(10_000, 20_000))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("history.jsonl", b'{"a": "\xff"}\n'),
            ("history.jsonl", b'{"a": {"b": 1}}\n'),
            ("history.jsonl", b'{"a": "\\ud800"}\n'),
            ("history.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n"),
            ("history.jsonl", b"\0" * 50 + b"\n"),
            ("history.jsonl", b'{"a": 1, "a": 2}\n'),
            ("contents.jsonl", b'{"a": 1}\n'),
            ("contents.jsonl", b'{"kind": "table", "name": "t"}\n'),
            ("contents.jsonl", b'{"kind": "x", "name": [], "caption": ""}\n'),
            ("contents.jsonl", b'{"kind": "secret", "name": "a", "caption": ""}\n'),
            ("contents.jsonl", b'{"kind": "picture", "name": "../../secret", "caption": ""}\n'),
            ("contents.jsonl", b'{"kind": "table", "name": "/etc/passwd", "caption": ""}\n'),
            ("settings.toml", b"\xff"),
            ("run.json", b"{}"),
            ("run.json", b"[" * 100_000),
        ],
    )
    def test_what_makes_no_sense_is_one_line_that_names_the_file(
        self, files, tmp_path, name, content
    ):
        folder = written(files, tmp_path / "run")
        (folder / name).write_bytes(content)
        told = self.tell(folder, name)
        assert told.startswith("rfho: ")
        assert name in told

    @pytest.mark.parametrize(
        "change",
        [
            {"title": None},
            {"versions": []},
            {"versions": {"jax": 1}},
            {"seconds": "1"},
            {"started": 5},
            {"started": "yesterday"},
            {"status": "splendid"},
            {"status": '"><script>'},
            {"more": 1},
        ],
    )
    def test_a_description_that_makes_no_sense_is_refused(self, files, tmp_path, change):
        folder = written(files, tmp_path / "run")
        about = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(about | change))
        assert "run.json" in self.tell(folder, str(change))

    @pytest.mark.parametrize(
        "name",
        [
            "run.json",
            "settings.toml",
            "history.jsonl",
            "contents.jsonl",
            "owner.json",
            "report.html",
        ],
    )
    def test_no_link_is_followed(self, files, tmp_path, name):
        folder = written(files, tmp_path / "run")
        (tmp_path / "secret").write_text(SECRET)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "secret")
        self.tell(folder, name)
        assert (tmp_path / "secret").read_text() == SECRET

    @pytest.mark.parametrize(
        "name", ["pictures/value.png", "tables/accuracy.json", "arrays/values.npz"]
    )
    def test_a_result_that_is_a_link_is_left_out(self, files, tmp_path, name):
        folder = written(files, tmp_path / "run")
        (tmp_path / "elsewhere").write_bytes(files[Path(name)])
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "elsewhere")
        assert "is a link or no file" in self.tell(folder, name)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert "is a link or no file" in self.tell(folder, name)

    @pytest.mark.parametrize("name", ["pictures", "tables", "arrays"])
    def test_a_folder_that_is_a_link_is_left_out(self, files, tmp_path, name):
        folder = written(files, tmp_path / "run")
        (folder / name).rename(tmp_path / "elsewhere")
        (folder / name).symlink_to(tmp_path / "elsewhere")
        assert "is a link or no file" in self.tell(folder, name)

    def test_markup_is_shown_and_not_obeyed(self, files, tmp_path):
        folder = written(files, tmp_path / "run")
        evil = '<script>alert(1)</script>{{ 7 * 7 }}" onload="x'
        about = json.loads((folder / "run.json").read_text())
        changed = dict.fromkeys(("title", "summary", "command", "reason", "experiment"), evil)
        (folder / "run.json").write_text(json.dumps(about | changed | {"versions": {evil: evil}}))
        (folder / "history.jsonl").write_text(json.dumps({evil: evil}) + "\n")
        (folder / "settings.toml").write_text(evil)
        lines = [{"kind": "picture", "name": "value", "caption": evil}]
        (folder / "contents.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        told = self.tell(folder, "markup")
        assert "<script" not in told
        assert told.count("{{ 7 * 7 }}") > 8
        assert 'onload="x' not in told

    def test_half_a_last_line_is_left_out_and_said_so(self, files, tmp_path):
        folder = written(files, tmp_path / "run")
        for name in ("history.jsonl", "contents.jsonl"):
            with (folder / name).open("a") as stream:
                stream.write('{"ki')
        told = self.tell(folder, "torn")
        assert told.count("was cut off when the run was stopped, and is left out.") == 2
        assert len(RunFolder(folder).history()) == 3

    def test_a_huge_array_is_told_without_being_read(self, files, tmp_path):
        folder = written(files, tmp_path / "run")
        np.savez_compressed(folder / "arrays" / "values.npz", values=np.zeros(10**8, np.uint8))
        assert "values (100000000,) uint8" in self.tell(folder, "huge")


class TestMutatedSettings:
    """`rfho run --config` on a damaged file of settings: it runs, or one line and exit code 2."""

    TEXT = (
        'data = "digits"\nseed = 0\nsteps = 3\nrate = 0.5\nshare = 0.5\nradii = [1.0, 2.0]\n'
        'shuffle = true\nnote = "free"\nwait = false\n'
    )

    def look(self, folder: Path, seeds: range) -> None:
        idle = Experiment("idle", "t", "s", FakeSettings(), FakeSettings(), lambda *_: None)
        for seed in seeds:
            (folder / "settings.toml").write_bytes(damaged(self.TEXT.encode(), seed))
            out = folder / str(seed)
            command = ("run", "idle", "--config", str(folder / "settings.toml"), "--out", str(out))
            code, _, errors = said(*command, experiments=(idle,))
            assert code in (0, 2), seed
            assert errors.count("\n") == (code == 2), seed
            assert len(errors) < 2000, seed
            assert out.exists() == (code == 0), seed

    def test_a_hundred(self, tmp_path):
        self.look(tmp_path, range(11 * len(DAMAGES)))

    @pytest.mark.soak
    def test_two_thousand(self, tmp_path):
        self.look(tmp_path, range(5000, 7000))


class TestKills:
    def test_killed_fifty_times_it_is_readable_each_time(self, tmp_path):
        kill_again_and_again("killed_run:run", tmp_path / "run", 50, longest=0.15)

    @pytest.mark.soak
    def test_killed_a_thousand_times_it_is_readable_each_time(self, tmp_path):
        kill_again_and_again("killed_run:run", tmp_path / "run", 1000, longest=0.15)


class TestFullDisk:
    """A run whose disk fails: a named error, a true status, nothing left behind."""

    def run(self, path: Path) -> tuple[int, str]:
        code, _, errors = said("run", "fake", "--out", str(path), experiments=(FAKE,))
        return code, errors

    def true(self, path: Path, code: int, errors: str) -> None:
        assert code in (0, 1, 2)
        assert errors.count("\n") == (code != 0)
        assert not list(path.rglob("*.partial"))
        if code and (path / "run.json").exists():
            about = read_about(path / "run.json")
            finished = about.status == "finished" and "report.html" in errors
            assert finished or (about.status == FAILED and "could not be written" in about.reason)
            RunFolder(path).history()

    @pytest.mark.parametrize("size", ["4k", "8k", "16k", "24k", "32k", "48k", "64k", "80k", "128k"])
    def test_a_small_disk(self, tmp_path, size):
        with small_disk(tmp_path / "disk", size) as disk:
            code, errors = self.run(disk / "run")
            assert code == 0 or "No space left on device" in errors
            self.true(disk / "run", code, errors)

    def test_a_disk_that_somebody_else_fills(self, tmp_path):
        def run(settings, folder, console):
            folder.record({"step": 0})
            filled(folder.path.parent)
            folder.add_arrays("w", {"w": np.zeros(9)}, "weights")

        toy = Experiment("toy", "t", "s", FakeSettings(), FakeSettings(), run)
        with small_disk(tmp_path / "disk", "256k") as disk:
            code, _, errors = said("run", "toy", "--out", str(disk / "run"), experiments=(toy,))
            assert code == 1
            assert "w.npz could not be written (No space left on device)" in errors
            about = RunFolder(disk / "run").about()
            assert about.status == FAILED
            assert "No space left on device" in about.reason
            assert RunFolder(disk / "run").history() == [{"step": 0}]

    @pytest.mark.parametrize("limit", [100, 1000, 5000, 20_000])
    def test_a_limit_on_the_size_of_files(self, tmp_path, limit):
        with file_limit(limit):
            code, errors = self.run(tmp_path / "run")
        assert code in (1, 2)
        assert "File too large" in errors
        self.true(tmp_path / "run", code, errors)

    @pytest.mark.parametrize("call", [call for call in CALLS if call != "ftruncate"])
    def test_every_call_to_the_system_may_fail(self, tmp_path, call):
        times = count(tmp_path, call, lambda: self.run(tmp_path / "whole"))
        assert times > 5
        draw = np.random.default_rng(0)
        for at in draw.choice(times, 8, replace=False).tolist():
            path = tmp_path / f"{call}-{at}"
            number = int(draw.choice(ERRORS))
            with Faults(path, call, at, number).on() as faults:
                code, errors = self.run(path)
            assert faults.reached or code == 0
            self.true(path, code, errors)

    @pytest.mark.soak
    @pytest.mark.parametrize("number", ERRORS)
    @pytest.mark.parametrize("call", [call for call in CALLS if call != "ftruncate"])
    def test_every_call_fails_with_every_error(self, tmp_path, call, number):
        times = count(tmp_path, call, lambda: self.run(tmp_path / "whole"))
        for at in range(times):
            path = tmp_path / f"{call}-{at}"
            with Faults(path, call, at, number).on() as faults:
                code, errors = self.run(path)
            assert faults.reached or code == 0
            self.true(path, code, errors)

    def test_a_status_is_changed_in_its_place_where_nothing_else_can_be(self, tmp_path):
        folder = create_run_folder("fake", tmp_path / "run")
        folder.begin(FakeSettings(), experiment="e", title="t", summary="s", command="c")
        with Faults(tmp_path, "replace", 0, 28).on():
            folder.finish(FAILED, "x" * 5000)
        about = folder.about()
        assert about.status == FAILED
        assert about.reason in ("x" * 2000, "")


class TestOwners:
    def run(self, folder: Path, processes: int, rounds: int) -> None:
        command = [
            sys.executable,
            str(TESTS / "owners.py"),
            str(folder),
            str(processes),
            str(rounds),
        ]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["1"] * rounds

    @pytest.mark.parametrize("processes", [2, 8])
    def test_of_many_that_start_at_once_one_gets_the_folder(self, tmp_path, processes):
        self.run(tmp_path, processes, 10)

    @pytest.mark.soak
    @pytest.mark.parametrize("processes", [2, 8])
    def test_of_many_that_start_at_once_one_gets_the_folder_a_hundred_times(
        self, tmp_path, processes
    ):
        self.run(tmp_path, processes, 100)

    def test_a_second_one_is_refused_with_a_sentence(self, tmp_path):
        mine = claim(tmp_path)
        with pytest.raises(RunFolderError) as caught:
            claim(tmp_path)
        for part in (
            str(tmp_path),
            f"process {os.getpid()} on ",
            mine.owner.since,
            "wait until it ends",
        ):
            assert part in str(caught.value)

    def test_a_folder_that_was_given_up_is_free(self, tmp_path):
        claim(tmp_path).release()
        again = claim(tmp_path)
        again.release()
        again.release()
        assert read_owner(tmp_path) is None

    def test_who_is_no_longer_the_owner_gives_nothing_up(self, tmp_path):
        mine = claim(tmp_path)
        (tmp_path / "owner.json").unlink()
        other = claim(tmp_path)
        mine.release()
        assert read_owner(tmp_path) == other.owner

    @pytest.mark.parametrize(
        ("change", "alive"),
        [
            ({}, True),
            ({"process": 2**22 + 1}, False),
            ({"started": "1"}, False),  # another process that has got the same number
            ({"boot": "before"}, False),  # this machine was started anew
            ({"boot": "before", "host": "elsewhere"}, True),  # of which one cannot know
            ({"namespace": "pid:[1]"}, True),  # in another container, which still holds the file
        ],
    )
    def test_who_lives(self, tmp_path, change, alive):
        mine = claim(tmp_path)
        assert is_alive(tmp_path, mine.owner._replace(**change)) is alive

    def test_the_owner_of_a_container_that_is_gone_is_dead(self, tmp_path):
        mine = claim(tmp_path)
        os.close(mine.locked.pop())
        assert not is_alive(tmp_path, mine.owner._replace(namespace="pid:[1]"))

    def test_an_owner_on_another_machine_can_be_removed_by_hand(self, tmp_path, monkeypatch):
        mine = claim(tmp_path)
        other = mine.owner._replace(boot="before", host="elsewhere")
        (tmp_path / "owner.json").write_text(json.dumps(other._asdict()))
        with pytest.raises(RunFolderError, match=r"if it is over, remove .*owner\.json"):
            claim(tmp_path)
        (tmp_path / "owner.json").unlink()
        claim(tmp_path)

    def test_without_locks_the_link_decides(self, tmp_path, monkeypatch):
        monkeypatch.setattr(owner, "fcntl", None)
        monkeypatch.setattr(owner, "read_owner", lambda folder: None)
        claim(tmp_path)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(RunFolderError, match="has just got another owner"):
            claim(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 10_000])
    def test_a_damaged_owner_is_one_sentence_and_the_report_is_made(self, tmp_path, files, content):
        folder = written(files, tmp_path / "run")
        (folder / "owner.json").write_bytes(content)
        with pytest.raises(DataFormatError, match=r"owner\.json"):
            claim(folder)
        assert said("report", str(folder))[0] == 0

    def test_the_run_of_a_dead_owner_was_killed(self, tmp_path):
        folder = create_run_folder("fake", tmp_path / "run")
        folder.begin(FakeSettings(), experiment="e", title="t", summary="s", command="c")
        assert folder.about().status == RUNNING
        dead = folder.claim.owner._replace(started="1")
        (folder.path / "owner.json").write_text(json.dumps(dead._asdict()))
        assert folder.about().status == "killed"

    def test_a_folder_that_cannot_be_written_to_is_a_sentence(self, tmp_path):
        with small_disk(tmp_path / "disk", "64k") as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            with pytest.raises(WriteError, match="Read-only file system"):
                claim(disk)

    def test_the_time_is_that_of_the_place(self, tmp_path):
        since = datetime.datetime.fromisoformat(claim(tmp_path).owner.since)
        assert since.tzinfo is not None
        assert abs((datetime.datetime.now().astimezone() - since).total_seconds()) < 60
