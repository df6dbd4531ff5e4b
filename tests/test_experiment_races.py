"""Races at equal CPU time, in miniature: the clock is fair, the screen says who leads, rfho goes down."""

import io
import itertools

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments import races
from rfho.experiments.races import RACES, RaceSettings
from rfho.experiments.races.contest import Move, objective, one_for_all, race, random_search
from rfho.experiments.races.report import by_number
from rfho.experiments.races.screen import drawn, screen
from rfho.experiments.races.tables import race_table
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
    assert last["a"].path == ((0.0, 4.0), (1.0, 1.0), (2.0, 1.0))


def test_hypergradients_descend_what_the_others_evaluate():
    start = one_for_all(TABLE)
    moves = races.by_hypergradients(TABLE, start, RaceSettings())
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
    monkeypatch.setattr(races, "find_spec", lambda name: None)
    settings = RaceSettings(penalties=(16,), train=100, valid=200, budget=1.0)
    folder = create_run_folder("races", tmp_path / "run")
    console = Console(file=io.StringIO())
    execute(RACES, settings, folder, command="", console=console)
    rows = {row[0]: row for row in folder.table("results").rows}
    assert set(rows) == {
        f"{name}, m = 16" for name in ("one penalty for all, by grid", "rfho", "random search")
    }
    assert folder.arrays("race-16-penalties")["log_penalties"].shape == (16,)
    assert "random search" in console.file.getvalue()


def test_the_picture_over_the_number_of_penalties_has_every_racer():
    records = [
        {"racer": racer, "penalties": m, "objective": 1.0 / m, "test loss": 1.0}
        for racer, m in itertools.product(["a", "b"], [1, 10])
    ]
    axis = by_number(records).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]


def test_more_groups_than_columns_are_refused():
    with pytest.raises(SettingsError, match="129 groups, but digits has 128 columns"):
        race_table("digits", (100, 200), groups=129, seed=0)
