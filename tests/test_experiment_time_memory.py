"""Forward or reverse, in miniature: two methods, two sizes."""

import io

import equinox as eqx
import pytest
from rich.console import Console

import rfho
from rfho.experiments import time_memory
from rfho.experiments.time_memory import (
    TIME_MEMORY,
    CostSettings,
    measure,
    methods,
    training,
    whole_run,
)
from rfho.experiments.time_memory.report import FORWARD, REVERSE, crossing
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

SETTINGS = CostSettings(
    train=60, hidden=8, horizon=8, hypers=(20,), widths=(8,), few=1, every=4, rounds=1
)


@pytest.fixture(scope="module")
def two_methods():
    both = {
        name: method for name, method in methods(SETTINGS).items() if name in (REVERSE, FORWARD)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_memory, "methods", lambda settings: both)
        yield both


@pytest.fixture(scope="module")
def folder(tmp_path_factory, two_methods):
    folder = create_run_folder("time-memory", tmp_path_factory.mktemp("costs") / "run")
    console = Console(file=io.StringIO())
    execute(TIME_MEMORY, SETTINGS, folder, command="", console=console)
    return folder


def of(folder, method, key):
    """With 1 hyperparameter, and with 20; eight hidden units."""
    rows = [row for row in folder.history() if row["method"] == method]
    return [row[key] for row in sorted(rows, key=lambda row: row["sweep"], reverse=True)]


def test_costs_of_forward_mode_grow_with_the_hyperparameters_and_those_of_reverse_do_not(folder):
    few, many = of(folder, FORWARD, "memory")
    assert many > 5 * few > 0
    few, many = of(folder, REVERSE, "memory")
    assert few == pytest.approx(many, rel=0.1)
    assert of(folder, FORWARD, "time")[1] > 1.2 * of(folder, REVERSE, "time")[1]


@pytest.mark.parametrize("method", [FORWARD, REVERSE])
def test_forecasts_stand_beside_what_was_measured(folder, method):
    pairs = zip(of(folder, method, "memory"), of(folder, method, "forecast memory"), strict=True)
    assert all(0.5 * measured < forecast < 2 * measured for measured, forecast in pairs)
    assert all(time > 1 for time in of(folder, method, "forecast time"))


def test_the_report_has_the_picture_four_tables_and_the_crossing(folder):
    assert [item.kind for item in folder.contents()] == ["picture", *["table"] * 5]
    assert " (" in folder.table("memory-by-parameters").rows[0][1]


def test_a_point_of_both_sweeps_is_measured_once(tmp_path, monkeypatch):
    measured = []

    def one_row(problem, hyper, settings):
        measured.append(hyper.size)
        costs = dict.fromkeys(("time", "memory", "forecast time", "forecast memory"), hyper.size)
        return [{"method": name, **costs} for name in (REVERSE, FORWARD)]

    monkeypatch.setattr(time_memory, "measure", one_row)
    settings = CostSettings(train=20, hypers=(1, 4), few=4, hidden=8, widths=(3, 8))
    folder = create_run_folder("time-memory", tmp_path / "run")
    execute(TIME_MEMORY, settings, folder, command="", console=Console(file=io.StringIO()))
    assert measured == [1, 4, 4]
    rows = folder.table("time-by-parameters").rows
    assert rows[0][1:] == ("4.00 (4.00)", "4.00 (4.00)")


def test_what_was_measured_before_ctrl_c_is_shown(tmp_path, monkeypatch):
    def one_point(problem, hyper, settings):
        if hyper.size > 1:
            raise KeyboardInterrupt
        costs = dict.fromkeys(("time", "memory", "forecast time", "forecast memory"), 2.0)
        return [{"method": name, **costs} for name in (REVERSE, FORWARD)]

    monkeypatch.setattr(time_memory, "measure", one_point)
    folder = create_run_folder("time-memory", tmp_path / "run")
    outcome = execute(
        TIME_MEMORY,
        CostSettings(train=40, hidden=8),
        folder,
        command="",
        console=Console(file=io.StringIO()),
    )
    assert outcome.status == "interrupted"
    assert {item.name for item in folder.contents()} == {
        "time-memory",
        "time-by-hyperparameters",
        "memory-by-hyperparameters",
        "crossing",
    }


@pytest.mark.usefixtures("two_methods")
def test_what_would_take_too_long_is_only_forecast():
    problem, hyper = training(SETTINGS, 3, 4)
    rows = measure(problem, hyper, CostSettings(train=60, horizon=8, longest=0.0))
    assert all(row["time"] is None and row["forecast time"] > 1 for row in rows)


def test_real_time_hypergradients_are_those_of_one_whole_training_run():
    problem, hyper = training(SETTINGS, 3, 4)
    method = methods(SETTINGS)["real-time, Δ = 4"]
    values, hypergradients = eqx.filter_eval_shape(whole_run(method), problem, hyper)
    assert (values.shape, hypergradients.shape) == ((2,), (2, 3))


def test_real_time_hypergradients_look_no_further_than_the_training_run():
    *_, last = methods(CostSettings(horizon=4, every=9)).items()
    assert last == ("real-time, Δ = 4", rfho.RealTimeHyperGradient(4))


def test_the_crossing_is_where_the_lines_meet():
    sizes = [1, 10, 100]
    assert crossing(sizes, [3.0, 3.0, 3.0], [1.0, 9.0, 90.0]) == pytest.approx(10**0.5)
    assert crossing(sizes, [3.0, None, 3.0], [1.0, 9.0, 2.0]) is None


def test_more_hyperparameters_than_examples_are_refused(tmp_path):
    folder = create_run_folder("time-memory", tmp_path / "run")
    with pytest.raises(SettingsError, match="raise train"):
        TIME_MEMORY.run(CostSettings(hypers=(500,)), folder, Console(file=io.StringIO()))
