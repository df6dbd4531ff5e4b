"""Hyper-representation in miniature: what meta-training learns, and that its hypergradient is exact."""

import io
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from rfho.experiments.hyper_representation import (
    HYPER_REPRESENTATION,
    RepresentationSettings,
    estimate,
    last_layer,
)
from rfho.experiments.hyper_representation.few_shot import (
    Pools,
    draw_episodes,
    invent_characters,
    nearest,
    represent_episodes,
)
from rfho.experiments.hyper_representation.report import add_episode
from rfho.experiments.parts.convolution import random_convolutions
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

SETTINGS = RepresentationSettings(
    shots=(1,),
    channels=(8, 8, 8),
    ways=3,
    episodes=4,
    queries=3,
    steps=60,
    outer_rate=0.01,
    every=60,
    tests=40,
)
POOL = invent_characters(40, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("few", tmp_path_factory.mktemp("few") / "run")
    with pytest.MonkeyPatch.context() as patch:
        few_characters(patch, POOL[:28], POOL[28:])
        console = Console(file=io.StringIO())
        execute(HYPER_REPRESENTATION, SETTINGS, folder, command="", console=console)
    return folder


@pytest.fixture(scope="module")
def episodes():
    return draw_episodes(POOL, np.random.default_rng(0), count=2, ways=3, drawings=4)


def few_characters(patch, training, testing):
    name = "rfho.experiments.hyper_representation.load_pools"
    patch.setattr(name, lambda name, seed: Pools(training, testing))


def test_new_classes_are_told_apart_better_than_by_an_untrained_network(folder):
    rows = {row[0]: row[2].mean for row in folder.table("accuracy").rows}
    assert rows["hyper-representation"] > rows["untrained representation"] + 3
    assert rows["untrained representation"] > 40


def test_the_history_says_how_meta_testing_went(folder):
    first, last = folder.history()
    assert (first["step"], last["step"]) == (0, 60)
    assert last["test accuracy %"] > first["test accuracy %"]
    assert [item.name for item in folder.contents()] == ["episode", "accuracy", "accuracy"]


def test_the_hypergradient_is_that_of_training_written_out(episodes):
    network = random_convolutions((1, 4), seed=0)
    hyper = {"network": jax.tree.map(lambda leaf: leaf.astype(float), network)}
    hyper["log_rate"] = jnp.log(0.1)

    def losses(heads, rows):
        logits = rows @ heads
        labels = jnp.broadcast_to(jnp.repeat(jnp.arange(3), rows.shape[1] // 3), logits.shape[:2])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(axis=1)

    def after_training(hyper):
        features = represent_episodes(hyper["network"], episodes, 1)
        support, query = (
            jnp.pad(rows, ((0, 0), (0, 0), (0, 1)), constant_values=1) for rows in features
        )
        heads = jnp.zeros((2, support.shape[2], 3))
        for _ in range(3):
            slope = jax.grad(lambda heads: losses(heads, support).sum())(heads)
            heads = heads - jnp.exp(hyper["log_rate"]) * slope
        return losses(heads, query).mean()

    value, hypergradient = eqx.filter_jit(estimate)(last_layer(3, 3), hyper, episodes, shots=1)
    expected, by_hyper = jax.jit(jax.value_and_grad(after_training))(hyper)
    assert value == pytest.approx(float(expected), rel=1e-12)
    for a, b in zip(jax.tree.leaves(hypergradient), jax.tree.leaves(by_hyper), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
    assert abs(float(by_hyper["log_rate"])) > 1e-4


def test_nearest_drawing_is_right_where_all_drawings_of_a_class_are_one():
    pool = np.repeat(POOL[:5, :1], 20, axis=1)
    drawn = draw_episodes(pool, np.random.default_rng(0), count=3, ways=3, drawings=6)
    assert nearest(drawn, 2) == pytest.approx(100)


def test_an_episode_has_each_class_and_each_drawing_once(episodes):
    flat = episodes.reshape(2, 12, -1)
    assert all(len(np.unique(episode, axis=0)) == 12 for episode in flat)


@pytest.mark.parametrize("drawings", [2, 6])
def test_an_episode_is_drawn_however_few_are_asked_for(drawings):
    drawn = []
    episode = np.arange(3 * drawings, dtype=np.uint8).reshape(3, drawings, 1, 1)
    add_episode(SimpleNamespace(add_picture=lambda name, figure, _: drawn.append(figure)), episode)
    axes = [axis for axis in drawn[0].axes if axis.images]
    shown = min(drawings, 4)
    assert [axis.get_title() for axis in axes[:4]] == ["class A", "class B", "class C", "A?"]
    pixels = [round(255 * float(axis.images[0].get_array()[0, 0])) for axis in axes]
    assert pixels == [drawings * k + number for number in range(shown) for k in range(3)]


def test_too_many_classes_are_refused(tmp_path, monkeypatch):
    few_characters(monkeypatch, POOL[:2], POOL[2:4])
    folder = create_run_folder("few", tmp_path / "run")
    with pytest.raises(SettingsError, match="lower one of them"):
        HYPER_REPRESENTATION.run(SETTINGS, folder, Console(file=io.StringIO()))
