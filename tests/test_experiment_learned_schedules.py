"""Learned schedules, in miniature."""

import io

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.learned_schedules import (
    LEARNED_SCHEDULES,
    ScheduleSettings,
    constant_rates,
    reordered,
    training,
)
from rfho.experiments.parts.image_data import load_image_split
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder

TINY = ScheduleSettings(train=40, test=40, hidden=4, batch=20, horizon=5, steps=3, repeats=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("learned-schedules", tmp_path_factory.mktemp("schedules") / "run")
    console = Console(file=io.StringIO())
    execute(LEARNED_SCHEDULES, TINY, folder, command="", console=console)
    return folder


@pytest.fixture(scope="module")
def data():
    return load_image_split("digits", (40, 10, 40), seed=0)


def test_every_layer_has_a_rate_for_every_step(folder):
    rates = folder.arrays("rates")
    assert sorted(rates)[:2] == ["biases-1", "biases-2"]
    assert len(rates) == 8
    assert all(schedule.shape == (5,) for schedule in rates.values())


def test_rates_of_one_start_go_apart(folder):
    rates = np.stack(list(folder.arrays("rates").values()))
    assert np.all(rates > 0)
    assert np.unique(rates).size > 8


def test_learned_rates_are_compared_with_constant_ones(folder):
    names = [row[0] for row in folder.table("every-step").rows]
    assert names[:2] == ["learned, every step and layer", "where it started, 0.03"]
    assert names[2].startswith("the best constant rate")


def test_every_outer_step_sees_other_minibatches(data):
    stream = training(data, TINY).train
    batches = [np.asarray(reordered(stream, k)(0)[0]) for k in (0, 1, 1)]
    assert batches[0].shape == (20, 64)
    assert not np.array_equal(batches[0], batches[1])
    assert np.array_equal(batches[1], batches[2])


def test_constant_rates_have_the_shape_of_the_network(data):
    rates = constant_rates(data, TINY, 0.5)
    assert [sorted(layer) for layer in rates] == [["bias", "weight"]] * 4
    assert all(np.all(leaf == 0.5) for layer in rates for leaf in layer.values())
