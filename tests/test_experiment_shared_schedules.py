"""Shared schedules, in miniature."""

import io
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.parts.image_data import load_image_split
from rfho.experiments.shared_schedules import (
    SHARED_SCHEDULES,
    SharedSettings,
    by_cosine,
    by_sign,
    contest,
    cosines,
    search,
    training,
)
from rfho.experiments.shared_schedules.contest import Contestant, Trial
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

TINY = SharedSettings(
    train=40,
    valid=40,
    layers=0,
    batch=20,
    horizon=8,
    steps=4,
    blocks=2,
    schedules=3,
    repeats=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("shared-schedules", tmp_path_factory.mktemp("schedules") / "run")
    console = Console(file=io.StringIO())
    execute(SHARED_SCHEDULES, TINY, folder, command="", console=console)
    return folder


@pytest.fixture(scope="module")
def problem():
    data = load_image_split("digits", (40, 40), seed=0)
    return training(data, by_cosine(TINY.horizon), TINY)


def lines(folder, name):
    return [line for line in folder.history() if line["schedule"] == name]


def test_a_block_has_at_least_one_step():
    with pytest.raises(SettingsError, match="blocks = 7: must be at most horizon = 6"):
        SharedSettings(horizon=6)


def test_hyperparameters_leave_zero_and_lower_the_loss(folder):
    learned = lines(folder, "learned from zero")
    assert len(learned) == 4
    assert [learned[0][key] for key in ("rates 1", "rates 2", "momentum", "decay")] == [0] * 4
    assert learned[1]["rates 1"] == pytest.approx(TINY.rate_step)
    assert learned[-1]["value"] < learned[0]["value"]


def test_as_many_random_schedules_are_tried_as_the_settings_say(folder):
    assert len(lines(folder, "the best random cosine")) == 3


def test_the_table_says_what_each_has_tried(folder):
    tried = [(row[0], row[3]) for row in folder.table("schedules").rows]
    assert tried == [
        ("learned from zero", 4),
        ("the best random cosine", 3),
        ("the best constant rate", 16),
    ]


def test_the_search_ends_when_it_has_taken_as_long_as_the_learning(problem, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(contest, "clock", lambda: float(next(ticks)))
    searching = Contestant("search", problem, [])
    for trial in search(searching, 5.0, SharedSettings(horizon=TINY.horizon)):
        searching.trials.append(trial)
    assert [trial.seconds for trial in searching.trials] == [1.0] * 5


def test_random_schedules_are_the_same_however_many_are_tried():
    few, more = (list(itertools.islice(cosines(TINY), count)) for count in (3, 5))
    assert few == more[:3]
    assert len({float(hyper["peak"]) for hyper in more}) == 5
    assert all(0 <= hyper["warmup"] <= 0.3 * TINY.horizon for hyper in more)


def test_a_step_by_sign_is_halved_when_the_sign_changes():
    optim = by_sign({"momentum": 0.1})
    hyper = {"momentum": jnp.zeros(2)}
    slots, moves = optim.init(hyper), []
    for signs in ((1.0, 3.0), (2.0, -0.1), (-1.0, -1.0), (-1.0, 0.0)):
        updates, slots = optim.update({"momentum": jnp.asarray(signs)}, slots, hyper)
        moves.append(np.asarray(updates["momentum"]))
    expected = [[-0.1, -0.1], [-0.1, 0.05], [0.05, 0.05], [0.05, 0]]
    np.testing.assert_allclose(moves, expected, rtol=1e-6)


def test_compiling_is_not_counted(problem):
    trials = [Trial(None, 0.0, seconds) for seconds in (30.0, 2.0, 1.0, 2.0, 2.0)]
    assert Contestant("slow at first", problem, trials).seconds == 10.0
    assert Contestant("nothing tried", problem, []).seconds == 0.0


def test_training_that_diverged_is_never_the_best(problem):
    values = (np.nan, 2.0, 1.0, -np.inf)
    trials = [Trial(number, value, 1.0) for number, value in enumerate(values)]
    assert Contestant("some", problem, trials).best.hyper == 2
    assert not Contestant("one", problem, trials[:1]).sound


def test_a_trial_is_recorded_with_one_number_for_each_entry():
    hyper = {"rates": jnp.array([1.0, 2.0]), "decay": jnp.float32(3)}
    assert Trial(hyper, 0.5, 4.0).row() == {
        "value": 0.5,
        "seconds": 4.0,
        "rates 1": 1.0,
        "rates 2": 2.0,
        "decay": 3.0,
    }
