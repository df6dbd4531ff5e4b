"""Learned schedules, in miniature."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.base import execute
from rfho.experiments.learned_schedules import LEARNED_SCHEDULES, ScheduleSettings, by_sign
from rfho.experiments.run_folder import create_run_folder

TINY = ScheduleSettings(
    train=40,
    valid=40,
    test=40,
    hidden=4,
    batch=20,
    horizon=5,
    steps=3,
    long_horizon=8,
    long_steps=4,
    blocks=2,
    price=3,
    repeats=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("learned-schedules", tmp_path_factory.mktemp("schedules") / "run")
    console = Console(file=io.StringIO())
    execute(LEARNED_SCHEDULES, TINY, folder, command="", console=console)
    return folder


def test_every_layer_has_a_rate_for_every_step(folder):
    rates = folder.arrays("rates")
    assert sorted(rates)[:2] == ["biases-1", "biases-2"]
    assert len(rates) == 8
    assert all(schedule.shape == (5,) for schedule in rates.values())


def test_rates_of_one_start_go_apart(folder):
    rates = np.stack(list(folder.arrays("rates").values()))
    assert np.all(rates > 0)
    assert np.unique(rates).size > 8


def test_blocks_leave_zero_and_lower_the_loss(folder):
    values = [row["validation loss"] for row in folder.history() if row["part"] == 2]
    assert len(values) == 4
    assert values[-1] < values[0]


def test_both_parts_are_compared_with_plainer_schedules(folder):
    assert len(folder.table("every-step").rows) == 3
    assert [row[0] for row in folder.table("shared-blocks").rows][1] == "cosine, by random search"


def test_a_step_by_sign_is_halved_when_the_sign_changes():
    optim = by_sign(TINY)
    hyper = {name: jnp.zeros(()) for name in ("rates", "momentum", "decay")}
    slots, moves = optim.init(hyper), []
    for sign in (1.0, 1.0, -1.0, -1.0):
        updates, slots = optim.update({name: jnp.asarray(sign) for name in hyper}, slots, hyper)
        moves.append(float(updates["momentum"]))
    np.testing.assert_allclose(moves, [-0.1, -0.1, 0.05, 0.05], rtol=1e-6)
