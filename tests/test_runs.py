"""`run=`: a run that was interrupted anywhere ends with the same bits as one that was not.

In one process here; with real signals and kills in `test_killed_runs.py`.
"""

import datetime
import functools
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from disk_faults import Faults, filled, small_disk
from killed import TESTS
from test_run_folder import said
from tuned_runs import METHODS, STEPS, Stops, digest, hyper, problem, tune, tune_many

import rfho
from rfho.errors import Result, SnapshotError, WriteError
from rfho.runs import Run
from rfho.runs.owner import RunFolderError, claim
from rfho.runs.run_folder import RunFolder

SHORT = ("reverse", "real time", "long reverse")
each_method = pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=() if name in SHORT else pytest.mark.soak) for name in METHODS],
)
each_short = pytest.mark.parametrize("method", SHORT)


@pytest.fixture(autouse=True)
def _without_pictures(request, monkeypatch):
    """Pictures take longer than everything else of a small run; `TestFolder` has them."""
    if request.cls is not TestFolder:
        monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)


@functools.cache
def uninterrupted(method: str) -> str:
    return digest(tune(method))


@functools.cache
def uninterrupted_many(method: str) -> list[str]:
    return [digest(one) for one in tune_many(method, throw=False)]


def history(folder: Path) -> list[int]:
    return [row["step"] for row in RunFolder(folder).history()]


class TestGoingOn:
    @each_method
    def test_ends_with_the_same_bits(self, tmp_path, method):
        part = tune(method, run=Run(tmp_path, every=2), listeners=[Stops(3, KeyboardInterrupt())])
        assert part.result is Result.STOPPED
        assert len(part.history) == 3
        assert RunFolder(tmp_path).about().status == "interrupted"
        assert digest(tune(method, run=Run(tmp_path))) == uninterrupted(method)
        assert history(tmp_path) == list(range(1, STEPS + 1))
        assert RunFolder(tmp_path).about().status == "finished"

    @each_short
    def test_with_a_folder_and_without_are_the_same(self, tmp_path, method):
        assert digest(tune(method, run=Run(tmp_path))) == uninterrupted(method)

    @each_short
    def test_interrupted_after_every_step(self, tmp_path, method):
        for step in range(1, STEPS + 1):
            part = tune(method, run=Run(tmp_path), listeners=[Stops(step, KeyboardInterrupt())])
            assert part.result is Result.STOPPED
            assert len(part.history) == step
        assert digest(tune(method, run=Run(tmp_path))) == uninterrupted(method)

    @each_short
    def test_a_finished_run_is_given_back(self, tmp_path, method):
        tune(method, run=Run(tmp_path))
        again = tune(method, run=Run(tmp_path), listeners=[Stops(1, AssertionError("no step"))])
        assert digest(again) == uninterrupted(method)

    @pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
    @pytest.mark.parametrize(
        "method", ["reverse", pytest.param("real time", marks=pytest.mark.soak)]
    )
    def test_several_starts_of_which_one_has_failed(self, tmp_path, method):
        stop = [Stops(4, KeyboardInterrupt())]
        part = tune_many(method, run=Run(tmp_path, every=1), listeners=stop, throw=False)
        assert [one.error for one in part if one.result is Result.STOPPED] == [None, None]
        again = tune_many(method, run=Run(tmp_path), throw=False)
        assert [digest(one) for one in again] == uninterrupted_many(method)
        assert again[1].result is Result.NON_FINITE_VALUE

    def test_iterate_goes_on_too(self, tmp_path):
        how = {"optim": optax.sgd(1e-4), "steps": 5}
        whole = list(rfho.iterate(problem(), hyper(), **how))
        first = rfho.iterate(problem(), hyper(), run=Run(tmp_path), **how)
        seen = [next(first), next(first)]
        first.close()
        seen += rfho.iterate(problem(), hyper(), run=Run(tmp_path), **how)
        assert [one.step for one in seen] == [1, 2, 3, 4, 5]
        for one, other in zip(seen, whole, strict=True):
            assert one.value == other.value
            np.testing.assert_array_equal(one.hyper["v"], other.hyper["v"])

    def test_more_steps_go_on_from_the_end(self, tmp_path):
        tune("reverse", steps=3, run=Run(tmp_path))
        assert digest(tune("reverse", run=Run(tmp_path))) == uninterrupted("reverse")

    def test_what_the_last_snapshot_does_not_know_is_done_again(self, tmp_path):
        run = Run(tmp_path, every=2)
        tune("reverse", steps=5, run=run)
        shutil.rmtree(sorted((tmp_path / "snapshots").iterdir())[-1])
        assert digest(tune("reverse", run=Run(tmp_path))) == uninterrupted("reverse")
        assert history(tmp_path) == list(range(1, STEPS + 1))

    def test_findings_are_said_once(self, tmp_path):
        def jumping(**how):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loss = lambda w, h, b: (w - h) ** 2  # noqa: E731
                dynamics = rfho.Descent(loss, lambda h: optax.sgd(0.5), jnp.zeros(()))
                jumps = rfho.Problem(dynamics, lambda w, h, b: w**2, horizon=1)
                rfho.tune(jumps, 1.0, optim=optax.sgd(2.0), steps=20, **how)
            return [str(one.message) for one in caught]

        whole = jumping()
        assert len(whole) == len(set(whole)) >= 1
        before = jumping(run=Run(tmp_path), listeners=[Stops(15, KeyboardInterrupt())])
        assert before + jumping(run=Run(tmp_path)) == whole

    def test_convergence_is_remembered(self, tmp_path):
        how = {"optim": optax.sgd(1e-9), "tolerance": 1e-3, "steps": 9}
        first = rfho.tune(problem(), hyper(), run=Run(tmp_path), **how)
        again = rfho.tune(problem(), hyper(), run=Run(tmp_path), **how)
        assert first.result is again.result is Result.CONVERGED
        assert digest(first) == digest(again)
        assert len(again.history) == 1


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
class TestFailure:
    """What goes wrong in the middle: the folder says so, and nothing that was finished is lost."""

    def test_a_function_of_the_user(self, tmp_path):
        with pytest.raises(ZeroDivisionError) as caught:
            tune("reverse", run=Run(tmp_path, every=100), listeners=[Vital(4)])
        assert len(caught.value.solution.history) == 4
        about = RunFolder(tmp_path).about()
        assert about.status == "failed"
        assert digest(tune("reverse", run=Run(tmp_path))) == uninterrupted("reverse")

    def test_numbers_that_are_not_finite(self, tmp_path):
        how = {"optim": optax.sgd(30.0), "steps": 9, "throw": False}
        whole = rfho.tune(problem(), hyper(), **how)
        assert whole.result.failed
        assert len(whole.history) >= 1
        run = Run(tmp_path, every=1)
        assert digest(rfho.tune(problem(), hyper(), run=run, **how)) == digest(whole)
        about = RunFolder(tmp_path).about()
        assert about.status == "failed"
        assert about.reason == whole.result.value
        assert digest(rfho.tune(problem(), hyper(), run=Run(tmp_path), **how)) == digest(whole)

    def test_it_ends_at_the_last_good_step_also_right_after_going_on(self, tmp_path):
        how = {"optim": optax.sgd(30.0), "steps": 9, "throw": False}
        whole = rfho.tune(problem(), hyper(), **how)
        last = len(whole.history)
        stop = [Stops(last, KeyboardInterrupt())]
        rfho.tune(problem(), hyper(), run=Run(tmp_path), listeners=stop, **how)
        assert digest(rfho.tune(problem(), hyper(), run=Run(tmp_path), **how)) == digest(whole)

    def test_a_full_disk(self, tmp_path):
        with small_disk(tmp_path / "disk", "2m") as disk:
            with pytest.raises(WriteError, match="No space left on device") as caught:
                tune("reverse", run=Run(disk / "run", every=1), listeners=[Fills(disk, 3)])
            assert len(caught.value.solution.history) >= 3
            about = RunFolder(disk / "run").about()
            assert about.status == "failed"
            assert "No space left on device" in about.reason
            assert not list(disk.rglob("*.partial"))
            (disk / "ballast").unlink()
            assert digest(tune("reverse", run=Run(disk / "run"))) == uninterrupted("reverse")

    @pytest.mark.parametrize("call", ["fsync", "replace", "pwrite", "open", "write"])
    def test_faults_of_the_disk(self, tmp_path, call):
        draw = np.random.default_rng(0)
        for at in draw.choice(30, 2, replace=False).tolist():
            folder = tmp_path / f"{call}-{at}"
            with Faults(folder, call, at, 5).on():
                try:
                    found = digest(tune("reverse", run=Run(folder, every=1)))
                except (WriteError, RunFolderError) as error:
                    found = ""
                    assert str(folder) in str(error)  # noqa: PT017 (some calls are not reached)
            assert found in ("", uninterrupted("reverse"))
            assert digest(tune("reverse", run=Run(folder))) == uninterrupted("reverse")


class Vital(Stops):
    """Ends the run by its failure."""

    vital = True

    def __init__(self, step: int) -> None:
        super().__init__(step, ZeroDivisionError("a bug"))


class Fills(rfho.Listener):
    """Fills the disk after a step."""

    def __init__(self, disk: Path, step: int) -> None:
        self.disk, self.at = disk, step

    def step(self, report):
        if report.step == self.at:
            filled(self.disk)


class TestRefusal:
    def refused(self, folder: Path, **how) -> str:
        with pytest.raises(SnapshotError) as caught:
            rfho.tune(
                **{"problem": problem(), "hyper": hyper(), "steps": 3, "run": Run(folder)} | how
            )
        return str(caught.value)

    @pytest.fixture
    def folder(self, tmp_path):
        rfho.tune(problem(), hyper(), steps=2, run=Run(tmp_path / "run"))
        return tmp_path / "run"

    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ({"optim": optax.adam(0.5)}, "step_size (settings) was -0.01 and is -0.5"),
            ({"method": rfho.ForwardHyperGradient()}, "was 'ReverseHyperGradient' and is 'Forward"),
            ({"hyper": hyper(2.0)}, "hyper.0.lr (data) is another one"),
            ({"problem": problem(7)}, "problem.horizon (settings) was 12 and is 7"),
            ({"domain": rfho.NonNegative()}, "domain"),
        ],
    )
    def test_what_changed_is_named(self, folder, how, said):
        message = self.refused(folder, **how)
        assert said in message
        assert str(folder) in message
        assert "allow=[" in message
        claim(folder)  # nobody owns it any more

    def test_the_remedy_that_it_names_is_one(self, folder):
        message = self.refused(folder, optim=optax.adam(0.02))
        allow = eval(message.partition("allow=")[2].partition(")")[0])
        run = Run(folder, allow=allow)
        assert (
            len(rfho.tune(problem(), hyper(), steps=3, optim=optax.adam(0.02), run=run).history)
            == 3
        )

    def test_another_version_may_be_allowed_by_its_name(self, folder, monkeypatch):
        from rfho.outer import identity

        monkeypatch.setattr(identity.importlib.metadata, "version", lambda name: "9.9")
        assert f"jax (versions) was {jax.__version__} and is 9.9" in self.refused(folder)
        run = Run(folder, allow=["rfho", "jax", "jaxlib", "optax", "equinox"])
        rfho.tune(problem(), hyper(), steps=3, run=run)

    def test_a_folder_with_something_else_in_it(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(RunFolderError, match="holds something, but no run"):
            tune("reverse", run=Run(tmp_path))

    def test_a_folder_with_an_owner(self, tmp_path):
        mine = claim(tmp_path)
        with pytest.raises(RunFolderError, match="belongs to process"):
            tune("reverse", run=Run(tmp_path))
        mine.release()

    def test_two_at_once_in_one_process(self, tmp_path):
        class Another(rfho.Listener):
            vital = True

            def step(self, report):
                tune("reverse", run=Run(tmp_path))

        with pytest.raises(RunFolderError, match="belongs to process"):
            tune("reverse", run=Run(tmp_path), listeners=[Another()])

    def test_a_damaged_snapshot_is_said_and_the_one_before_it_taken(self, tmp_path):
        tune("reverse", steps=4, run=Run(tmp_path, every=1))
        last = sorted((tmp_path / "snapshots").iterdir())[-1]
        (last / "arrays.safetensors").write_bytes(b"")
        with pytest.warns(UserWarning, match="snapshot 4 is not taken: .* the one before it is"):
            again = tune("reverse", run=Run(tmp_path))
        assert digest(again) == uninterrupted("reverse")

    @pytest.mark.parametrize("name", ["reports.bin", "history.jsonl"])
    def test_a_damaged_log_is_a_sentence(self, tmp_path, name):
        tune("reverse", steps=4, run=Run(tmp_path, every=1))
        content = bytearray((tmp_path / name).read_bytes())
        content[10] ^= 1
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SnapshotError, match=f"{name}.* does not begin with"):
            tune("reverse", run=Run(tmp_path))

    @pytest.mark.parametrize("name", ["reports.bin", "history.jsonl", "snapshots", "run.json"])
    def test_no_link_is_followed(self, tmp_path, name):
        folder = tmp_path / "run"
        tune("reverse", steps=2, run=Run(folder))
        (folder / name).rename(tmp_path / "elsewhere")
        (folder / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises((ValueError, OSError), match="link"):
            tune("reverse", run=Run(folder))


class TestArguments:
    @pytest.mark.parametrize("change", [{"every": 0}, {"every": 1.5}, {"keep": 0}, {"keep": True}])
    @pytest.mark.usefixtures("unchecked")
    def test_numbers_that_make_no_sense(self, tmp_path, change):
        with pytest.raises(ValueError, match=next(iter(change))):
            Run(tmp_path, **change)

    def test_it_stands_at_the_top_and_is_loaded_when_it_is_asked_for(self):
        assert rfho.Run is Run
        assert "Run" in dir(rfho)

    def test_snapshots_come_as_often_as_is_said(self, tmp_path):
        tune("reverse", run=Run(tmp_path / "a", every=2, keep=9))
        assert len(os.listdir(tmp_path / "a" / "snapshots")) == STEPS // 2
        hour = datetime.timedelta(hours=1)
        tune("reverse", run=Run(tmp_path / "b", every=hour))
        assert len(os.listdir(tmp_path / "b" / "snapshots")) == 1

    def test_a_run_can_be_used_again(self, tmp_path):
        run = Run(tmp_path)
        tune("reverse", steps=2, run=run)
        assert len(tune("reverse", steps=3, run=run).history) == 3


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
class TestFolder:
    """What `rfho report` and a reader find in the folder of a run."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("runs") / "ridge"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tune_many("reverse", run=Run(path, title="Ridge"), throw=False)
        return path

    def test_the_report_shows_everything(self, folder):
        code, output, errors = said("report", str(folder))
        assert (code, errors) == (0, "")
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert output.strip() == str(folder / "report.html")
        for text in (
            "<h1>Ridge</h1>",
            "ReverseHyperGradient on",
            "3 starts side by side",
            "The objective at each outer step.",
            "lr after each outer step.",
            "v after each outer step.",
            "Where it ended",
            "v mean",
        ):
            assert text in page, text
        assert page.count("data:image/png") == 4

    def test_every_row_has_the_numbers_of_its_step(self, folder):
        rows = RunFolder(folder).history()
        first = [row for row in rows if row["member"] == 0]
        assert [row["step"] for row in first] == list(range(1, STEPS + 1))
        assert {"objective", "lr", "l2", "v min", "v mean", "v max", "seconds"} <= set(first[0])
        assert "name" not in first[0]
        assert "momentum" not in first[0]

    def test_the_settings_are_text(self, folder):
        text = RunFolder(folder).settings_text()
        assert "steps = 6" in text
        assert "ReverseHyperGradient" in text

    def test_a_run_without_an_end_is_not_lost(self, tmp_path):
        tune("reverse", run=Run(tmp_path), listeners=[Stops(2, KeyboardInterrupt())])
        about = RunFolder(tmp_path).about()
        assert about.status == "interrupted"
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "interrupted" in page

    @pytest.mark.soak
    def test_the_run_costs_little(self, tmp_path):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

        def seconds(attempt: int) -> float:
            folder = tmp_path / str(attempt)
            folder.mkdir()
            command = [sys.executable, str(TESTS / "cost_of_a_run.py"), str(folder)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            return float(done.stdout)

        # 2 % of an outer step of 20 ms; whoever shares the core can only add to it.
        assert any(seconds(attempt) < 0.02 * 20e-3 for attempt in range(3))


def test_rows_are_json(tmp_path):
    tune("reverse", run=Run(tmp_path))
    for line in (tmp_path / "history.jsonl").read_text().splitlines():
        json.loads(line)
