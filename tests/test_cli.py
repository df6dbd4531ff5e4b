"""The command line: exit codes, one line for what is wrong, and a report however a run ends."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_experiment import FAKE

from rfho import cli
from rfho.runs.experiment import until_interrupted
from rfho.runs.run_folder import RunFolder

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def rfho(*arguments: str) -> int:
    return cli.main(arguments, experiments=(FAKE,))


class TestRun:
    def test_a_run_leaves_its_folder_and_its_report(self, capsys):
        assert rfho("run", "fake", "--out", "here", "--set", "steps=4", "--seed", "3") == 0
        folder = RunFolder(Path("here"))
        assert [row["step"] for row in folder.history()] == [0, 1, 2, 3]
        assert "seed = 3\n" in folder.settings_text()
        about = folder.about()
        assert about.status == "finished"
        assert about.command == "rfho run fake --out here --set steps=4 --seed 3"
        assert "here/report.html" in capsys.readouterr().out
        assert (folder.path / "report.html").exists()

    def test_the_folder_is_named_after_the_experiment_and_the_time(self):
        assert rfho("run", "fake") == 0
        (made,) = Path("runs").iterdir()
        assert re.fullmatch(r"fake-\d{8}-\d{6}", made.name)

    def test_the_full_protocol_has_its_own_settings(self):
        assert rfho("run", "fake", "--full", "--out", "here") == 0
        assert len(RunFolder(Path("here")).history()) == 200

    def test_settings_of_a_run_make_the_same_run_again(self):
        rfho("run", "fake", "--out", "one", "--set", "rate=0.25", "--set", "radii=3,4")
        assert rfho("run", "fake", "--out", "two", "--config", "one/settings.toml") == 0
        assert RunFolder(Path("one")).history() == RunFolder(Path("two")).history()
        assert Path("one/settings.toml").read_bytes() == Path("two/settings.toml").read_bytes()

    def test_assignments_count_more_than_the_file(self):
        Path("some.toml").write_text("steps = 2\nrate = 0.25\n")
        rfho("run", "fake", "--out", "here", "--config", "some.toml", "--set", "steps=1")
        settings = RunFolder(Path("here")).settings_text()
        assert "steps = 1\n" in settings
        assert "rate = 0.25\n" in settings


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run", "fkae"], "unknown experiment 'fkae': did you mean fake?"),
            (["run", "zzz"], "unknown experiment 'zzz': the experiments are fake"),
            (["run", "fake", "--set", "stesp=3"], "unknown setting 'stesp' (given '3')"),
            (["run", "fake", "--set", "steps=0"], "steps = 0: steps (outer steps) must be at"),
            (
                ["run", "fake", "--set", "radii=[0.5"],
                "radii = '[0.5': radii (bounds on the sum) must",
            ),
            (["run", "fake", "--seed", "x"], "seed = 'x': seed (of all that is random) must"),
            (["run", "fake", "--data", "minst"], "data = 'minst': data (the data set) must be one"),
            (["run", "fake", "--data", "mnist"], "no such file: set RFHO_DATA"),
            (
                ["run", "fake", "--config", "no.toml"],
                "the settings file no.toml cannot be read (No such",
            ),
            (["run", "fake", "--config", "list.toml"], "stesp"),
            (["run", "fake", "--out", "full"], "the folder full is not empty: choose another"),
            (["run", "fake", "--out", "full/file"], "cannot make the folder full/file"),
            (["run", "fake", "--sett", "a=1"], "--sett"),
            (["run"], "name"),
            (["fly"], "fly"),
            (["list", "fkae"], "did you mean fake?"),
            (["report", "full"], "full is not the folder of a run"),
            (["report", "nowhere"], "nowhere is not the folder of a run"),
        ],
    )
    def test_it_is_one_line_on_stderr_and_exit_code_2(self, arguments, message, capsys):
        Path("full").mkdir()
        Path("full/file").touch()
        Path("list.toml").write_text("[stesp]\nsteps = 3\n")
        assert rfho(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("rfho: ")
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert not Path("runs").exists() or not any(Path("runs").iterdir())

    def test_numbers_that_fail_are_one_line_and_exit_code_1(self, capsys):
        assert rfho("run", "fake", "--out", "here", "--set", "note=diverge") == 1
        said = "rfho: FAILED: the objective became NaN; the report is here/report.html\n"
        assert capsys.readouterr().err == said
        report = Path("here/report.html").read_text(encoding="utf-8")
        assert "HyperGradientError: the objective became NaN" in report

    def test_a_bug_keeps_its_traceback_and_still_leaves_a_report(self):
        with pytest.raises(ZeroDivisionError):
            rfho("run", "fake", "--out", "here", "--set", "note=fail")
        assert RunFolder(Path("here")).about().status == "failed"
        report = Path("here/report.html").read_text(encoding="utf-8")
        assert "ZeroDivisionError: a bug &lt;here&gt;" in report

    def test_a_missing_extra_is_one_line(self):
        # In a child: modules that are imported anew would be others than those that tests hold.
        program = "import sys; sys.modules['typer'] = None; from rfho import cli; sys.exit(cli.main(['list']))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 2
        message = done.stderr
        assert message.startswith("rfho: the command needs typer, which is not installed")
        assert "rfho[cli]" in message
        assert message.count("\n") == 1


class TestOtherCommands:
    def test_list_names_the_experiments(self, capsys):
        assert rfho("list") == 0
        output = capsys.readouterr().out
        assert "fake" in output
        assert "The exponential function falls." in output

    def test_list_of_one_names_its_settings(self, capsys):
        assert rfho("list", "fake") == 0
        output = capsys.readouterr().out
        for text in ("radii", "[1.0, 2.0]", "list of float", "bounds on the sum", "200"):
            assert text in output

    def test_the_experiments_of_the_package_can_be_listed(self, capsys):
        assert cli.main(["list"]) == 0
        assert "Experiments" in capsys.readouterr().out

    @pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help")])
    def test_help_is_there_for_who_asks_and_who_says_nothing(self, arguments, capsys):
        assert rfho(*arguments) == 0
        output = capsys.readouterr().out
        assert "Usage: rfho" in output
        assert "experiments" in output or "--set" in output

    def test_help_of_a_run_names_the_settings_of_its_experiment(self, capsys):
        assert rfho("run", "fake", "--help") == 0
        output = capsys.readouterr().out
        for text in ("--set", "list of float", "bounds on the sum", "200"):
            assert text in output
        assert not Path("runs").exists()

    def test_version(self, capsys):
        assert rfho("--version") == 0
        assert re.fullmatch(r"rfho \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)

    def test_brackets_in_the_name_of_a_folder_are_shown(self, capsys):
        assert rfho("run", "fake", "--out", "here[rate=1]") == 0
        said = capsys.readouterr().out
        assert "writing to here[rate=1]\n" in said
        assert "finished: here[rate=1]/report.html\n" in said
        assert rfho("report", "here[rate=1]") == 0
        assert capsys.readouterr().out == "here[rate=1]/report.html\n"

    def test_report_is_made_again(self, capsys):
        rfho("run", "fake", "--out", "here")
        path = Path("here/report.html")
        original = path.read_bytes()
        path.unlink()
        capsys.readouterr()
        assert rfho("report", "here") == 0
        assert capsys.readouterr().out == "here/report.html\n"
        assert path.read_bytes() == original


def told_while_waiting(folder: Path, number: signal.Signals) -> tuple[int, str, str]:
    """The exit code, output and errors of a run in ``here`` that gets a signal after its third outer step."""
    command = [sys.executable, str(TESTS / "fake_experiment.py"), "run", "fake"]
    options = ["--out", "here", "--set", "steps=9", "--set", "wait=true"]
    with subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "waiting":
                break
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


class TestCtrlC:
    def test_the_first_ends_the_outer_steps_and_the_report_is_of_what_there_is(self, tmp_path):
        code, output, errors = told_while_waiting(tmp_path, signal.SIGINT)
        assert code == 130
        assert errors == ""
        assert "Interrupted" in output
        folder = RunFolder(tmp_path / "here")
        assert folder.about().status == "interrupted"
        assert len(folder.history()) == 3
        assert [item.name for item in folder.contents()] == ["value", "accuracy", "values"]
        assert len(folder.arrays("values")["values"]) == 3
        report = (folder.path / "report.html").read_text(encoding="utf-8")
        assert "interrupted" in report
        assert "data:image/png;base64," in report

    def test_sigterm_leaves_with_143_and_a_report_of_what_there_is(self, tmp_path):
        code, output, errors = told_while_waiting(tmp_path, signal.SIGTERM)
        assert code == 143
        assert errors == ""
        assert "SIGTERM" in output
        folder = RunFolder(tmp_path / "here")
        assert folder.about().status == "interrupted"
        assert len(folder.history()) == 3
        assert [item.name for item in folder.contents()] == ["value", "accuracy", "values"]
        report = (folder.path / "report.html").read_text(encoding="utf-8")
        assert "by SIGTERM" in report
        assert "data:image/png;base64," in report

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_leaves_with_the_report_that_there_is(self, second):
        def slow(settings, folder, console):
            with until_interrupted(folder, console):
                folder.record({"step": 0})
                signal.raise_signal(signal.SIGTERM)
            assert Path("here/report.html").exists()
            signal.raise_signal(second)
            raise AssertionError("it should have left")

        fake = dataclasses.replace(FAKE, run=slow)
        code = 143 if second == signal.SIGTERM else 130
        assert cli.main(["run", "fake", "--out", "here"], experiments=(fake,)) == code
        folder = RunFolder(Path("here"))
        assert folder.about().status == "interrupted"
        assert len(folder.history()) == 1

    def test_a_program_that_leaves_by_itself_is_not_taken_for_sigterm(self):
        def leaves(settings, folder, console):
            with until_interrupted(folder, console):
                raise SystemExit(3)

        fake = dataclasses.replace(FAKE, run=leaves)
        assert cli.main(["run", "fake", "--out", "here"], experiments=(fake,)) == 3

    def test_outside_the_outer_steps_it_ends_the_run_and_still_leaves_a_report(self):
        def interrupted(settings, folder, console):
            folder.record({"step": 0})
            raise KeyboardInterrupt

        fake = dataclasses.replace(FAKE, run=interrupted)
        assert cli.main(["run", "fake", "--out", "here"], experiments=(fake,)) == 130
        assert RunFolder(Path("here")).about().status == "interrupted"
        assert Path("here/report.html").exists()
