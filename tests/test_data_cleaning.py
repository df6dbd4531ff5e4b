"""Data hyper-cleaning at a tiny size: what it finds, and what it leaves behind."""

import re
import tomllib

import numpy as np
import pytest

from rfho import cli
from rfho.experiments import EXPERIMENTS
from rfho.experiments.data_cleaning import DATA_CLEANING
from rfho.experiments.data_cleaning.data import load_cleaning_data
from rfho.experiments.data_cleaning.report import detection
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError
from rfho.runs.table import Spread

SIZES = ("train=120", "valid=100", "test=100")
TINY = (*SIZES, "horizon=60", "steps=15", "outer_rate=0.05", "inner_rate=0.5", "budgets=0.3,0.5")

PICTURES = {"loss-noise-50", "f1-noise-50", "weights-noise-50", "suspects-noise-50"}


def clean(out, *assignments: str) -> int:
    changes = [part for assignment in assignments for part in ("--set", assignment)]
    return cli.main(["run", "data-cleaning", "--out", str(out), *changes])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    """Two noise levels with two seeds each."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert clean(path, *TINY, "noise=0.5,0.7", "repeats=2") == 0
    return RunFolder(path)


class TestFinishedRun:
    @pytest.mark.parametrize("noise", [0.5, 0.7])
    def test_suspects_are_found_far_better_than_by_chance(self, finished, noise):
        # Suspects drawn at random have the noise level as their precision.
        assert column(finished, noise, "precision")["R = 36"].mean > noise + 0.2
        assert column(finished, noise, "recall")["R = 36"].mean > 0.65
        assert column(finished, noise, "F1")["R = 36"].mean > 0.78

    def test_cleaning_beats_training_on_everything(self, finished):
        rows = {row[0]: row[1].mean for row in finished.table("accuracy-noise-70").rows}
        assert rows["R = 36"] > rows["baseline"]
        assert rows["oracle"] > rows["baseline"]
        assert {"validation", "R = 60"} <= set(rows)

    def test_a_model_of_the_clean_examples_is_judged_beside_the_weights(self, finished):
        found = column(finished, 0.5, "F1")
        assert 0.8 < found["validation"].mean < 1.0
        assert found["oracle"] is None

    def test_a_noise_matrix_is_judged_beside_the_weights(self, finished):
        assert column(finished, 0.5, "F1")["noise matrix"].mean > 0.85
        assert column(finished, 0.5, "test %")["noise matrix"].mean > 70

    def test_repeats_are_summarised_by_mean_and_deviation(self, finished):
        assert isinstance(column(finished, 0.5, "F1")["R = 60"], Spread)

    def test_there_is_one_line_for_every_outer_step(self, finished):
        rows = finished.history()
        assert len(rows) == 2 * 2 * 15
        assert [row["step"] for row in rows[:15]] == list(range(1, 16))
        assert rows[14]["loss R=36"] < rows[0]["loss R=36"]
        assert rows[14]["suspects R=36"] > 0

    def test_weights_lie_in_their_budgets_and_tell_suspects_apart(self, finished):
        saved = finished.arrays("weights-noise-50-seed-1")
        assert saved["weights"].shape == (2, 120)
        assert saved["weights"].min() >= 0
        assert saved["weights"].max() <= 1
        assert np.all(saved["weights"].sum(axis=1) <= saved["radii"] * (1 + 1e-5))
        assert np.array_equal(saved["wrong"], saved["given"] != saved["true"])
        assert saved["wrong"].sum() == 60
        right, wrong = saved["weights"][0][~saved["wrong"]], saved["weights"][0][saved["wrong"]]
        assert right.mean() > 3 * wrong.mean()

    def test_the_pictures_are_there(self, finished):
        seventy = {name.replace("50", "70") for name in PICTURES}
        assert {item.name for item in finished.contents() if item.kind == "picture"} == (
            PICTURES | seventy
        )

    def test_the_report_is_self_contained(self, finished):
        page = (finished.path / "report.html").read_text()
        sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
        assert len(sources) == 2 * len(PICTURES)
        assert all(source.startswith("data:image/png;base64,") for source in sources)

    def test_settings_are_recorded(self, finished):
        settings = tomllib.loads(finished.settings_text())
        assert (settings["noise"], settings["outer_rate"]) == ([0.5, 0.7], 0.05)


def test_the_online_variant_cleans_during_one_training_run(tmp_path):
    assert clean(tmp_path / "online", *TINY, "window=10") == 0
    folder = RunFolder(tmp_path / "online")
    rows = folder.history()
    assert len(rows) == 15
    assert rows[-1]["F1 R=36"] > 0.7


def test_ctrl_c_leaves_a_report_of_what_there_is(tmp_path, monkeypatch):
    record = RunFolder.record

    def interrupted(folder, row):
        record(folder, row)
        if row["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "record", interrupted)
    assert clean(tmp_path / "stopped", *TINY, "repeats=2") == 130
    folder = RunFolder(tmp_path / "stopped")
    assert folder.about().status == "interrupted"
    assert [row["step"] for row in folder.history()] == [1, 2, 3]
    assert "weights-noise-50-seed-0" in {item.name for item in folder.contents()}
    assert "Test accuracy" in (folder.path / "report.html").read_text()


def test_ctrl_c_before_the_first_step_leaves_a_report_too(tmp_path, monkeypatch):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("rfho.iterate_many", interrupted)
    assert clean(tmp_path / "stopped", *TINY) == 130
    folder = RunFolder(tmp_path / "stopped")
    assert folder.history() == []
    assert column(folder, 0.5, "F1")["R = 36"] == 0.0


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train=2000", "digits is too small"),
        ("budgets=0", "must be between"),
        ("data=cifar", "must be one of digits, mnist, fashion-mnist"),
        ("inner_rate=5e37", "lower inner_rate"),
    ],
)
def test_settings_that_cannot_work_are_one_line(assignment, message, tmp_path, capsys):
    assert clean(tmp_path / "refused", *TINY, assignment) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_the_split_is_balanced_disjoint_and_decided_by_the_seed():
    data = load_cleaning_data("digits", (120, 100, 100), noise=0.3, seed=1)
    everything = np.concatenate([data.true, data.valid[1], data.test[1]])
    assert set(np.bincount(everything)) == {32}
    assert data.wrong.sum() == 36
    assert len({row.tobytes() for row in np.concatenate([data.train[0], data.valid[0]])}) == 220
    again = load_cleaning_data("digits", (120, 100, 100), noise=0.3, seed=1)
    assert np.array_equal(data.train[1], again.train[1])
    other = load_cleaning_data("digits", (120, 100, 100), noise=0.3, seed=2)
    assert not np.array_equal(data.train[1], other.train[1])


def test_a_data_set_too_small_is_refused():
    with pytest.raises(SettingsError, match="too small"):
        load_cleaning_data("digits", (1000, 500, 500), noise=0.5, seed=0)


def test_no_suspects_score_zero():
    nobody, everybody = np.zeros(4, bool), np.ones(4, bool)
    assert set(detection(nobody, everybody).values()) == {0.0}
    assert set(detection(nobody, nobody).values()) == {0.0}
    assert set(detection(everybody, everybody).values()) == {1.0}


def test_the_full_protocol_is_that_of_the_paper():
    full = DATA_CLEANING.full
    assert DATA_CLEANING in EXPERIMENTS
    assert (full.train, full.valid, full.test, full.noise) == (5000, 5000, 10_000, (0.5,))
    assert [budget * full.train for budget in full.budgets] == [1000, 1500, 2000, 2500]
    assert (full.horizon, full.steps) == (2000, 500)
    assert (full.inner_rate, full.outer_rate, full.threshold) == (0.1, 0.005, 1e-3)


def column(folder: RunFolder, noise: float, name: str) -> dict[str, object]:
    """One column of the accuracy table, by its rows."""
    table = folder.table(f"accuracy-noise-{round(100 * noise)}")
    place = [column.name for column in table.columns].index(name)
    return {row[0]: row[place] for row in table.rows}
