"""Races at equal CPU time, in miniature: the clock is fair, the screen says who leads, rfho goes down."""

import io
import itertools

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.races import RACES, RaceSettings, racers_of, races_of
from rfho.experiments.races.comparison import advantages, compared, over_time
from rfho.experiments.races.contest import BOUNDS, Move, Standing, objective, one_for_all, race
from rfho.experiments.races.descent import by_hypergradients
from rfho.experiments.races.models import NUMBERS
from rfho.experiments.races.report import by_number, ways_down
from rfho.experiments.races.screen import drawn, screen
from rfho.experiments.races.searches import (
    CMA_ES,
    HALVING,
    RANDOM,
    TPE,
    lacking,
    random_search,
    search_of,
)
from rfho.experiments.races.tables import RaceTable, race_table
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

TABLE = race_table("digits", (100, 200), groups=16, seed=0)
FLAT = np.zeros(16)


def clocked(monkeypatch, ticks):
    """A race of two whose moves take as long as it says."""
    times = {name: iter(each) for name, each in ticks.items()}
    now = [0.0]

    def moves(name):
        for seconds, value in times[name]:
            now[0] += seconds
            yield Move(value, FLAT)

    monkeypatch.setattr("rfho.experiments.races.contest.clock", lambda: now[0])
    return {name: moves(name) for name in ticks}


def test_whoever_has_used_least_time_moves_next_and_compilation_counts(monkeypatch):
    slow_start = [(3.0, 2.0), *[(0.5, 1.0)] * 20]
    racers = clocked(monkeypatch, {"a": slow_start, "b": [(1.0, 3.0)] * 20})
    *_, last = race(racers, Move(4.0, FLAT), budget=5.0)
    assert last["a"].seconds == 5.0
    assert last["b"].seconds == 5.0
    assert last["a"].compiling == 2.5
    assert last["b"].compiling == 0.0
    assert (last["a"].best.value, last["b"].best.value) == (1.0, 3.0)
    assert (last["a"].moves, last["b"].moves) == (5, 5)


def test_the_best_is_kept_where_it_was_taken(monkeypatch):
    racers = clocked(monkeypatch, {"a": [(1.0, 1.0), (1.0, 9.0)]})
    *_, last = race(racers, Move(4.0, FLAT), budget=9.0)
    times, values = last["a"].way_down
    assert (times.tolist(), values.tolist()) == ([0.0, 1.0, 2.0], [4.0, 1.0, 1.0])
    assert (last["a"].best_at(0.5).value, last["a"].best_at(1.0).value) == (4.0, 1.0)


def test_hypergradients_descend_what_the_others_evaluate():
    start = one_for_all(TABLE)
    moves = by_hypergradients(TABLE, start, 0.3)
    first, *_, last = itertools.islice(moves, 12)
    for move in (first, last):
        assert move.value == pytest.approx(objective(TABLE, move.log_penalties).value, rel=0.03)
    searched = min(move.value for move in itertools.islice(random_search(TABLE, 0), 12))
    assert last.value < min(searched, 0.9 * start.value)
    assert last.log_penalties[:8].mean() < last.log_penalties[8:].mean()


def test_the_screen_names_the_leader_and_draws_the_penalties(monkeypatch):
    racers = clocked(monkeypatch, {"rfho": [(1.0, 1.0)], "random search": [(1.0, 2.0)]})
    *_, last = race(racers, Move(4.0, np.arange(16.0)), budget=1.0)
    console = Console(file=io.StringIO(), width=120)
    console.print(screen(last, 1.0, penalties=np.arange(16.0)))
    said = console.file.getvalue()
    assert "1.0000" in said
    assert "2.0000" in said
    left, right = drawn(np.r_[np.zeros(8), np.ones(8)]).split("│")
    assert "█" in left
    assert not right.strip()


def test_a_race_leaves_tables_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("rfho.experiments.races.searches.find_spec", lambda name: None)
    settings = RaceSettings(penalties=(16,), train=100, valid=200, budget=1.0)
    folder = create_run_folder("races", tmp_path / "run")
    console = Console(file=io.StringIO())
    execute(RACES, settings, folder, command="", console=console)
    rows = {row[0]: row for row in folder.table("results").rows}
    assert set(rows) == {
        f"digits, m = 16, {name}"
        for name in ("one penalty for all, by grid", "rfho", "random search")
    }
    assert folder.arrays("race-digits-16-penalties")["log_penalties"].shape == (16,)
    assert "random search" in console.file.getvalue()


def records_of(losses):
    """Of two racers and the tools at two m on three seeds; losses by racer, which grow with m and seed."""
    return [
        {
            "racer": racer,
            "table": "digits",
            "penalties": m,
            "seed": seed,
            "test loss": loss * m + seed,
            **(
                {"objective": loss * m + seed}
                if "Grouped" not in racer and "CV" not in racer
                else {}
            ),
            "moments": [1.0, 2.0],
            "objective then": [loss * m + seed + 1, loss * m + seed],
            "test loss then": [loss * m + seed + 1, loss * m + seed],
        }
        for (racer, loss), m, seed in itertools.product(losses.items(), [1, 10], range(3))
    ]


RECORDS = records_of(
    {"rfho": 1.0, "TPE": 2.0, "GroupedClassifier": 1.0, "LogisticRegressionCV": 4.0}
)


def test_racers_are_compared_seed_by_seed():
    rows = {tuple(row[:5]): row[5:] for row in compared(RECORDS).rows}
    middle, low, high, ahead = rows[10, "digits", "rfho", "TPE", "objective"]
    # 1 - 10/20, 1 - 11/21, 1 - 12/22 in per cent
    assert (middle, low, high) == pytest.approx((1000 / 21, 1000 / 22, 50.0))
    assert ahead == "3 of 3"
    assert (1, "digits", "GroupedClassifier", "LogisticRegressionCV", "test loss") in rows
    assert not any("CV" in key[3] and key[4] == "objective" for key in rows)


def test_pictures_name_whom_they_compare_and_where():
    picture = advantages(RECORDS)
    names = [text.get_text() for text in picture.legends[0].get_texts()]
    assert names == ["rfho over TPE", "GroupedClassifier over LogisticRegressionCV"]
    assert [label.get_text() for label in picture.axes[1].get_xticklabels()] == [
        "1\ndigits",
        "10\ndigits",
    ]
    axis = by_number([each for each in RECORDS if "objective" in each]).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["rfho", "TPE"]
    lines = over_time(RECORDS).axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines[:2]] == [[3.0, 2.0], [4.0, 3.0]]


@pytest.mark.parametrize("name", [RANDOM, TPE, CMA_ES, HALVING])
def test_each_search_stays_between_the_bounds_and_finds_what_it_says(name):
    for package in lacking(name):
        pytest.importorskip(package)
    start = one_for_all(TABLE)
    moves = list(itertools.islice(search_of(name, TABLE, start, seed=0), 4))
    finite = [move for move in moves if np.isfinite(move.value)]
    assert finite
    for move in finite:
        assert np.all((BOUNDS[0] <= move.log_penalties) & (move.log_penalties <= BOUNDS[1]))
        assert move.value == pytest.approx(objective(TABLE, move.log_penalties).value, rel=0.03)


@pytest.mark.parametrize("name", [TPE, HALVING])
def test_a_package_is_imported_before_the_clock_runs(monkeypatch, name):
    pytest.importorskip("optuna")
    imported = []
    monkeypatch.setattr("rfho.experiments.races.searches.import_module", imported.append)
    search_of(name, TABLE, Move(1.0, FLAT), seed=0)
    assert imported == ["optuna"]


def test_as_many_racers_as_there_may_be_are_drawn():
    standing = Standing(((0.0, Move(4.0, FLAT)), (2.0, Move(1.0, FLAT))), seconds=3.0)
    names = ["rfho", RANDOM, HALVING, TPE, CMA_ES]
    axis = ways_down(dict.fromkeys(names, standing)).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == names
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.get_lines()}
    assert len(looks) == len(names)


def test_a_search_that_lacks_a_package_is_left_out_and_said_so(monkeypatch):
    monkeypatch.setattr(
        "rfho.experiments.races.searches.find_spec", lambda name: None if name == "cmaes" else name
    )
    assert lacking(CMA_ES) == ["cmaes"]
    settings = RaceSettings(searches=("random search", "CMA-ES"))
    racers = racers_of(TABLE, one_for_all(TABLE), settings, 0)
    assert list(racers) == ["rfho", "random search"]


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_both_ways_to_train_have_the_same_minimum(kind):
    table = race_table("cancer", (0, 0), groups=0, seed=0)
    assert (table.groups, table.outputs) == (30, 1)
    if kind == "numbers":
        parts = [part._replace(y=part.x[:, 0] + part.y) for part in table[:3]]
        table = RaceTable(*parts, table.group, NUMBERS)
        assert search_of(HALVING, table, one_for_all(table), seed=0) is None
    start = one_for_all(table)
    # The first move has too few Newton steps from zero; later ones go on from there.
    *_, move = itertools.islice(by_hypergradients(table, start, 0.01), 5)
    assert move.value == pytest.approx(objective(table, move.log_penalties).value, rel=3e-3)


def test_tables_with_groups_of_their_own_have_one_race():
    settings = RaceSettings(tasks=("digits", "cancer"), penalties=(1, 8))
    assert list(races_of(settings)) == [("digits", 1), ("digits", 8), ("cancer", 0)]


def test_more_groups_than_columns_are_refused_before_the_first_race(tmp_path, monkeypatch):
    monkeypatch.setattr("rfho.experiments.races.watch", lambda *_, **__: pytest.fail("it began"))
    folder = create_run_folder("races", tmp_path / "run")
    with pytest.raises(SettingsError, match="129 groups, but digits has 128 columns"):
        RACES.run(RaceSettings(penalties=(1, 129)), folder, Console(file=io.StringIO()))
