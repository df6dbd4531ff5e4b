"""The commands on runs: `rfho resume` ends as an uninterrupted run, `rfho list` and `rfho compare` show several."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

import rfho
from rfho import cli
from rfho.errors import DataNotFoundError
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.owner import claim
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import setting
from rfho.runs.table import Column, make_table

STEPS = 5
DYNAMICS = rfho.Descent(
    lambda w, h, b: (w - h["target"]) ** 2, lambda h: optax.sgd(0.25), jnp.zeros(())
)
PROBLEM = rfho.Problem(DYNAMICS, lambda w, h, b: (w - 1) ** 2, horizon=3)


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = setting(0.1, "outer step size")


class Counted:
    """An experiment of two outer loops that counts its outer steps, and stops at one of them."""

    def __init__(self) -> None:
        self.stop_at: int | None = None
        self.taken: list[int] = []
        self.replayed: list[int] = []
        self.lacks_data = False

    def __call__(self, settings: Settings, folder: RunFolder, console) -> None:
        if self.lacks_data:
            raise DataNotFoundError("no such file: set RFHO_DATA")
        ends = []
        with until_interrupted(folder, console):
            for start in (0.5, 2.0):
                loop = OuterLoop(folder, f"from {start}")
                for report in rfho.iterate(
                    PROBLEM,
                    {"target": start},
                    optim=optax.adam(settings.rate),
                    steps=STEPS,
                    listeners=[Heard(self)],
                    run=loop,
                ):
                    folder.record({"start": start, "step": report.step, "objective": report.value})
                self.replayed.append(loop.replayed)
                ends.append((start, float(report.hyper["target"])))
        folder.add_table("ends", make_table("Ends", [Column("start"), Column("λ")], ends))


class Heard(rfho.Listener):
    """Counts the steps that are taken, not those that are told again."""

    vital = True

    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    def step(self, report) -> None:
        self.counted.taken.append(report.step)
        if len(self.counted.taken) == self.counted.stop_at:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")


@pytest.fixture
def counted():
    return Counted()


@pytest.fixture
def command(counted):
    fake = Experiment("fake", "Fake", "Two loops.", Settings(), Settings(), counted)
    return lambda *arguments: cli.main(arguments, experiments=(fake,))


class TestResume:
    @pytest.mark.parametrize("stop_at", [2, STEPS, STEPS + 3])
    def test_it_ends_as_if_it_had_not_been_interrupted(self, command, counted, stop_at):
        assert command("run", "fake", "--out", "whole") == 0
        counted.stop_at, counted.taken = stop_at, []
        assert command("run", "fake", "--out", "here") == 130
        assert RunFolder(Path("here")).about().status == "interrupted"
        counted.stop_at, before = None, len(counted.taken)
        assert command("resume", "here") == 0
        here, whole = RunFolder(Path("here")), RunFolder(Path("whole"))
        assert here.about().status == "finished"
        assert here.history() == whole.history()
        assert here.table("ends") == whole.table("ends")
        assert before + len(counted.taken[before:]) == 2 * STEPS
        assert sum(counted.replayed[-2:]) == before

    def test_what_cannot_go_on_for_want_of_data_keeps_its_results(self, command, counted, capsys):
        counted.stop_at = STEPS + 3
        command("run", "fake", "--out", "here")
        here = RunFolder(Path("here"))
        history, contents = here.history(), here.contents()
        counted.lacks_data = True
        assert command("resume", "here") == 2
        assert "set RFHO_DATA" in capsys.readouterr().err
        assert (here.history(), here.contents()) == (history, contents)
        assert here.about().status == "failed"
        assert "set RFHO_DATA" in Path("here/report.html").read_text(encoding="utf-8")
        counted.lacks_data, counted.stop_at = False, None
        assert command("resume", "here") == 0
        assert len(here.history()) == 2 * STEPS

    def test_a_finished_run_is_left_alone(self, command, counted, capsys):
        command("run", "fake", "--out", "here")
        report = Path("here/report.html").read_bytes()
        counted.taken = []
        assert command("resume", "here") == 0
        assert "here is finished" in capsys.readouterr().out
        assert (counted.taken, Path("here/report.html").read_bytes()) == ([], report)

    def test_what_changed_is_refused_and_taken_by_its_name(
        self, command, counted, capsys, monkeypatch
    ):
        counted.stop_at = 2
        command("run", "fake", "--out", "here")
        counted.stop_at = None
        monkeypatch.setattr("rfho.outer.identity.importlib.metadata.version", lambda name: "9.9")
        assert command("resume", "here") == 2
        said = capsys.readouterr().err
        assert "jax (versions) was" in said
        assert said.count("\n") == 1
        allowed = [f"--allow={name}" for name in ("rfho", "jax", "jaxlib", "optax", "equinox")]
        assert command("resume", "here", *allowed) == 0

    def test_an_owner_who_lives_is_not_disturbed(self, command, counted, capsys):
        counted.stop_at = 2
        command("run", "fake", "--out", "here")
        history = Path("here/history.jsonl").read_bytes()
        mine = claim(Path("here"))
        assert command("resume", "here") == 2
        assert "belongs to process" in capsys.readouterr().err
        assert Path("here/history.jsonl").read_bytes() == history
        mine.release()

    def test_a_run_of_ones_own_says_how_it_goes_on(self, command, capsys):
        own("here", stop_at=2)
        assert command("resume", "here") == 2
        assert "is of a program of its own: start that again" in capsys.readouterr().err

    @pytest.mark.parametrize("content", [b"\xff", b"rate = 'fast'\n", b"speed = 1\n", b"["])
    def test_settings_that_make_no_sense_are_one_line(self, command, counted, capsys, content):
        counted.stop_at = 2
        command("run", "fake", "--out", "here")
        Path("here/settings.toml").write_bytes(content)
        assert command("resume", "here") == 2
        assert capsys.readouterr().err.count("\n") == 1


def own(folder: str, *, stop_at: int | None = None, rate: float = 0.1) -> None:
    """A run of one's own."""
    counted = Counted()
    counted.stop_at = stop_at
    rfho.tune(
        PROBLEM,
        {"target": 0.5},
        optim=optax.adam(rate),
        steps=STEPS,
        listeners=[Heard(counted)],
        run=rfho.Run(folder),
    )


class TestSeveral:
    @pytest.fixture
    def runs(self, monkeypatch):
        monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)
        own("runs/slow")
        own("runs/fast", rate=0.3, stop_at=3)

    @pytest.mark.usefixtures("runs")
    def test_list_shows_how_they_stand(self, command, capsys):
        assert command("list", "runs") == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines() if "runs/" in line]
        assert [line[1] for line in lines] == ["runs/fast", "runs/slow"]
        assert "interrupted" in lines[0]
        assert "finished" in lines[1]
        assert str(STEPS) in lines[1]

    @pytest.mark.usefixtures("runs")
    def test_what_is_no_outer_step_is_not_counted(self, command, capsys):
        Path("runs/slow/history.jsonl").write_text('{"penalties": 1}\n{"penalties": 8}\n')
        assert command("list", "runs/slow") == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "runs/slow" in line]
        assert line.split("finished")[1].split()[1] == "0"

    @pytest.mark.usefixtures("runs")
    def test_a_damaged_one_is_a_row_and_a_sentence(self, command, capsys):
        Path("runs/fast/run.json").write_bytes(b"\xff")
        assert command("list", "runs/fast", "runs/slow") == 0
        output = capsys.readouterr().out
        assert "damaged" in output
        assert "runs/fast/run.json" in output

    @pytest.mark.usefixtures("runs")
    def test_a_number_that_no_float_can_hold_is_none(self, command):
        for name in ("fast", "slow"):
            row = f'{{"step": 1, "objective": {10**400}, "a": 2.0}}\n'
            Path(f"runs/{name}/history.jsonl").write_text(row)
        assert command("list", "runs") == command("compare", "runs") == 0
        assert "a after each outer step" in Path("compare.html").read_text(encoding="utf-8")

    @pytest.mark.usefixtures("runs")
    def test_compare_draws_what_they_share(self, command, capsys):
        assert command("compare", "runs", "--out", "page.html") == 0
        assert capsys.readouterr().out == "page.html\n"
        page = Path("page.html").read_text(encoding="utf-8")
        for text in (
            "objective after each outer step",
            "target after each outer step",
            "runs/fast",
        ):
            assert text in page, text
        assert "seconds after" not in page
        assert page.count("data:image/png") == 6  # also of what the method says of itself

    @pytest.mark.usefixtures("runs")
    def test_what_is_no_outer_step_is_not_drawn_as_one(self, command):
        rows = '{"penalties": 1, "seed": 0, "objective": 2.0}\n{"penalties": 8, "seed": 0, "objective": 1.0}\n'
        Path("runs/slow/history.jsonl").write_text(rows)
        assert command("compare", "runs") == 0
        page = Path("compare.html").read_text(encoding="utf-8")
        assert (
            "runs/slow is not drawn: its history has no outer steps, but rows of penalties, seed"
            in page
        )
        assert "objective after each outer step" in page
        Path("runs/fast/history.jsonl").write_text('{"step": 1, "a": 2.0}\n{"step": 1, "a": 3.0}\n')
        assert command("compare", "runs") == 0
        page = Path("compare.html").read_text(encoding="utf-8")
        assert "runs/fast is not drawn: its history has steps that do not follow each other" in page
        assert "share no number" in page

    @pytest.mark.parametrize("verb", ["list", "compare"])
    def test_a_folder_without_a_run_is_one_line(self, command, capsys, verb):
        Path("empty").mkdir()
        assert command(verb, "empty") == 2
        assert "empty is not the folder of a run" in capsys.readouterr().err

    @pytest.mark.usefixtures("runs")
    def test_markup_in_a_damaged_history_is_text_on_the_page(self, command):
        for name in ("fast", "slow"):
            row = '{"step": 1, "<script>alert(1)</script>": 2.0, "objective": 1.0}\n'
            Path(f"runs/{name}/history.jsonl").write_text(row)
        assert command("compare", "runs") == 0
        assert "<script>" not in Path("compare.html").read_text(encoding="utf-8")
