"""Learning task interactions, in miniature."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rfho.datasets import DataFormatError
from rfho.experiments.parts.image_data import ImageSplit
from rfho.experiments.parts.network import cross_entropy
from rfho.experiments.task_interactions import (
    TASK_INTERACTIONS,
    InteractionSettings,
    load_split,
    penalised_loss,
)
from rfho.experiments.task_interactions.features import described
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

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
    penalty = penalised_loss(network, hyper, batch) - cross_entropy(network, hyper, batch)
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


class TestFeatures:
    def test_features_of_pictures_are_learned_without_labels(self):
        generator = np.random.default_rng(0)
        part = lambda n: (  # noqa: E731
            generator.uniform(size=(n, 300)).astype(np.float32),
            np.arange(n, dtype=np.int32) % 10,
        )
        pixels = ImageSplit(part(20), part(20), part(30), (10, 10, 3), tuple("abcdefghij"))
        split = described(pixels, words=5, seed=0)
        known = np.concatenate([split.train[0], split.valid[0]])
        assert known.shape == (40, 20)
        assert np.abs(known.mean(axis=0)).max() < 1e-4
        np.testing.assert_array_equal(split.test[1], pixels.test[1])
        turned = pixels._replace(train=(pixels.train[0], pixels.train[1][::-1].copy()))
        again = described(turned, words=5, seed=0)
        np.testing.assert_array_equal(again.train[0], split.train[0])

    def test_features_may_come_from_a_file(self, tmp_path):
        features = np.random.default_rng(0).normal(2.0, 3.0, size=(120, 4))
        np.savez(tmp_path / "deep.npz", features=features, labels=np.arange(120) % 10 + 3)
        path = str(tmp_path / "deep.npz")
        split = load_split(InteractionSettings(features=path, per_class=2, test=50), 0)
        assert split.train[0].shape == (20, 4)
        assert split.class_names == tuple(str(k) for k in range(3, 13))

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"features": np.ones((20, 3))}, "labels"),
            ({"features": np.ones(20), "labels": np.arange(20) % 10}, "shape"),
            ({"features": np.full((20, 3), np.nan), "labels": np.arange(20) % 10}, "NaN"),
            ({"features": np.ones((20, 3)), "labels": np.arange(20) % 4}, "4 classes"),
        ],
    )
    def test_a_file_that_is_not_that_is_refused(self, tmp_path, arrays, said):
        np.savez(tmp_path / "odd.npz", **arrays)
        settings = InteractionSettings(features=str(tmp_path / "odd.npz"), per_class=1, test=10)
        with pytest.raises((SettingsError, DataFormatError), match=said):
            load_split(settings, 0)
