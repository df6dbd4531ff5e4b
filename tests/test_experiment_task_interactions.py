"""Learning task interactions, in miniature."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.base import execute
from rfho.experiments.network import cross_entropy
from rfho.experiments.run_folder import create_run_folder
from rfho.experiments.task_interactions import (
    TASK_INTERACTIONS,
    InteractionSettings,
    penalised_loss,
)

TINY = InteractionSettings(
    per_class=2, test=50, splits=2, horizon=4, steps=3, outer_rate=0.01, radius=0.1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("task-interactions", tmp_path_factory.mktemp("tasks") / "run")
    console = Console(file=io.StringIO())
    execute(TASK_INTERACTIONS, TINY, folder, command="", console=console)
    return folder


def test_the_penalty_is_that_of_the_paper():
    generator = np.random.default_rng(0)
    weights, c = generator.normal(size=(5, 10)), generator.uniform(size=(10, 10))
    network = ({"weight": jnp.asarray(weights), "bias": jnp.zeros(10)},)
    batch = jnp.asarray(generator.normal(size=(3, 5))), jnp.asarray([0, 4, 9])
    expected = 0.5 * np.sum(weights**2) + sum(
        c[j, k] * np.sum((weights[:, j] - weights[:, k]) ** 2) for j in range(10) for k in range(10)
    )
    hyper = {"C": jnp.asarray(c), "rho": jnp.asarray(0.5)}
    penalty = penalised_loss(network, hyper, batch) - cross_entropy(network, batch)
    assert float(penalty) == pytest.approx(expected)


def test_all_four_methods_are_judged_on_every_split(folder):
    rows = folder.table("accuracy").rows
    assert [row[0].split(":")[0] for row in rows] == ["STL", "NMTL", "HMTL", "HMTL-S"]
    assert all(10 < row[1].mean <= 100 for row in rows)


def test_single_tasks_do_not_interact(folder):
    assert folder.table("accuracy").rows[0][-1] == 0


@pytest.mark.parametrize("name", ["hmtl", "hmtl-s"])
def test_graphs_are_symmetric_and_without_loops(folder, name):
    graphs = folder.arrays(f"{name}-graphs")["C"]
    assert graphs.shape == (2, 10, 10)
    np.testing.assert_allclose(graphs, graphs.transpose(0, 2, 1))
    assert np.all(graphs >= 0)
    assert np.all(np.diagonal(graphs, axis1=1, axis2=2) == 0)


def test_the_bound_on_the_sum_holds(folder):
    assert np.all(folder.arrays("hmtl-s-graphs")["C"].sum(axis=(1, 2)) <= 0.1 * 1.00001)
