"""Real-time tuning of a network for speech, in miniature."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import rfho
from rfho.datasets import SpokenDigits, Timit
from rfho.experiments.parts.network import random_network
from rfho.experiments.real_time_speech import (
    DOMAIN,
    METHODS,
    REAL_TIME_SPEECH,
    SpeechSettings,
    Stop,
    accuracy,
    follow,
    search,
    training,
    walk_plainly,
    walk_real_time,
)
from rfho.experiments.real_time_speech import data as frame_data
from rfho.experiments.real_time_speech.data import load_frame_split
from rfho.experiments.real_time_speech.network import logits, two_heads
from rfho.experiments.real_time_speech.report import paired
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError, changed

TINY = SpeechSettings(
    layers=2,
    hidden=8,
    batch=20,
    judges=30,
    horizon=24,
    every=2,
    look=4,
    patience=2,
    seeds=1,
)


@pytest.fixture(scope="module")
def split():
    return load_frame_split("digit-rows", radius=1, seed=0)


@pytest.fixture(scope="module")
def task(split):
    return training(split, TINY, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("real-time-speech", tmp_path_factory.mktemp("speech") / "run")
    execute(REAL_TIME_SPEECH, TINY, folder, command="", console=Console(file=io.StringIO()))
    return folder


def hyper_of(rate, momentum, rho):
    named = {"rate": rate, "momentum": momentum, "rho": rho}
    return {name: jnp.float32(value) for name, value in named.items()}


class TestFrames:
    def test_recordings_stay_whole(self, split):
        for part in (split.train, split.valid, split.test):
            assert len(part.primary) % 8 == 0
            rows = part.secondary.reshape(-1, 8)
            np.testing.assert_array_equal(rows, np.tile(np.arange(8), (len(rows), 1)))
            assert np.all(part.primary.reshape(-1, 8) == part.primary[::8, None])

    def test_nothing_is_lost(self, split):
        assert sum(len(part.primary) for part in split[:3]) == 8 * 1797

    def test_the_seed_decides_who_validates_and_not_who_tests(self, split):
        other = load_frame_split("digit-rows", radius=1, seed=1)
        np.testing.assert_array_equal(other.test.windows, split.test.windows)
        assert not np.array_equal(other.valid.primary, split.valid.primary)

    def test_spoken_digits_are_split_by_takes(self, monkeypatch):
        monkeypatch.setattr(frame_data, "load_spoken_digits", few_recordings)
        spoken = load_frame_split("spoken-digits", radius=2, seed=0)
        counts = [len(part.primary) for part in spoken[:3]]
        assert counts == [4 * 2 * 12, 4 * 2 * 3, 4 * 2 * 5]  # frames of two speakers, takes
        assert spoken.kinds == 2
        assert spoken.train.windows.shape[1] == 5 * 13

    def test_timit_is_split_by_speakers_and_names_thirds_of_phones(self, monkeypatch):
        monkeypatch.setattr(frame_data, "load_timit", few_sentences)
        timit = load_frame_split("timit", radius=2, seed=0)
        assert [len(part.primary) for part in timit[:3]] == [6 * 15, 2 * 15, 2 * 15]
        assert (timit.classes, timit.kinds) == (183, 5)
        assert set(timit.train.primary[:6].tolist()) == {3 * 4, 3 * 4 + 1, 3 * 4 + 2}
        assert timit.train.secondary[:6].tolist() == [2] * 6


def few_sentences():
    """Ten speakers, one sentence of 15 frames each; the last two speakers test."""
    count = 10
    frames = np.random.default_rng(0).normal(size=(15 * count, 40)).astype(np.float32)
    offsets = np.arange(count + 1, dtype=np.int32) * 15
    phone = np.tile(np.repeat([4, 2], [6, 9]), count)
    third = np.tile(np.repeat([0, 1, 2, 0, 1, 2], [2, 2, 2, 3, 3, 3]), count)
    following = np.tile(np.repeat([2, 4], [6, 9]), count)
    speaker = np.arange(count)
    names = tuple(f"speaker {k}" for k in speaker)
    return Timit(frames, offsets, phone, third, following, speaker, speaker >= 8, names)


def test_two_heads_are_the_halves_of_the_last_layer():
    whole = random_network((5, 7, 6), seed=0)
    windows = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)))
    primary, secondary = logits(two_heads(whole, 4), windows)
    hidden = jax.nn.relu(windows @ whole[0]["weight"] + whole[0]["bias"])
    expected = hidden @ whole[1]["weight"] + whole[1]["bias"]
    np.testing.assert_allclose(jnp.concatenate([primary, secondary], axis=1), expected)
    assert primary.shape == (3, 4)


def few_recordings():
    speaker, take = (np.ravel(each) for each in np.meshgrid([0, 1], np.arange(20)))
    count = len(take)
    frames = np.random.default_rng(0).normal(size=(4 * count, 40)).astype(np.float32)
    offsets = np.arange(count + 1, dtype=np.int32) * 4
    digit = take.astype(np.int32) % 10
    return SpokenDigits(frames, offsets, digit, speaker, take, take < 5, ("one", "two"))


class TestFollowing:
    def stops(self, networks):
        hyper = hyper_of(0.1, 0.5, 0.0)
        return (Stop(step, network, hyper) for step, network in enumerate(networks, start=1))

    def test_a_run_ends_when_the_accuracy_has_not_risen_for_a_while(self, task):
        networks = [network_of(seed) for seed in range(12)]
        rights = [float(accuracy(network, task.valid)) for network in networks]
        ordered = [networks[i] for i in np.argsort(rights)[[3, 11, *range(8)]]]
        one = follow(self.stops(ordered), task, TINY)
        assert one["validation frames %"] == one["looks"][1]["accuracy"]
        assert len(one["looks"]) == 2 + TINY.patience

    def test_it_is_judged_at_its_peak(self, task):
        network = network_of(0)
        one = follow(self.stops([network]), task, TINY)
        assert one["test frames %"] == float(accuracy(network, task.test))

    def test_time_that_is_up_ends_it_after_a_look(self, task):
        one = follow(self.stops(itertools.repeat(network_of(0))), task, TINY, budget=0.0)
        assert len(one["looks"]) == 1

    def test_hyperparameters_that_are_no_numbers_end_it(self, task):
        stops = (Stop(t, network_of(0), hyper_of(jnp.nan, 0.5, 0.0)) for t in itertools.count())
        assert len(follow(stops, task, TINY)["looks"]) == 1


def network_of(seed):
    return two_heads(random_network((24, 8, 8, 18), seed=seed), 10)


def test_real_time_tuning_that_does_not_move_is_plain_training(task):
    hyper = hyper_of(0.05, 0.5, 0.7)
    tuner = rfho.Tuner(rfho.hyper_gradients.RealTimeHyperGradient(2), optax.sgd(0.0), DOMAIN)
    *_, tuned = walk_real_time(task._replace(tuner=tuner), hyper, TINY)
    *_, plain = itertools.islice(walk_plainly(task, hyper, TINY), 3)
    assert tuned.step == plain.step == TINY.horizon
    for one, other in zip(*map(jax.tree.leaves, (tuned.network, plain.network)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


def test_random_search_goes_on_until_its_time_is_up_and_keeps_the_best(task):
    found = search(task, TINY, seed=0, budget=4.0)
    seconds = [look["seconds"] for look in found["looks"]]
    assert seconds == sorted(seconds)
    assert seconds[-1] >= 4.0
    assert found["training runs"] > 1
    assert found["validation frames %"] == max(look["accuracy"] for look in found["looks"])


def test_a_horizon_without_any_look_is_refused():
    with pytest.raises(SettingsError, match=r"horizon = 99: .* every \* look = 100 or more"):
        changed(SpeechSettings(), {"horizon": 99})


class TestReport:
    def test_every_method_has_its_row(self, folder):
        names = [row[0].split(":")[0] for row in folder.table("accuracy").rows]
        assert names == ["vanilla", "RS", "RTHO", "RTHO-NT"] == list(METHODS)

    def test_the_null_teacher_leaves_zero(self, folder):
        rows = [row for row in folder.history() if row["method"] == "RTHO-NT"]
        assert rows[-1]["rate"] > 0

    def test_the_start_is_kept_without_a_teacher(self, folder):
        rows = [row for row in folder.history() if row["method"] == "vanilla"]
        assert {(row["rate"], row["rho"]) for row in rows} == {(np.float32(0.075).item(), 0.0)}

    def test_methods_are_compared_with_random_search_seed_by_seed(self):
        right = {
            "RS": (80.0, 90.0, 70.0),
            "RTHO": (81.0, 92.0, 73.0),
            "vanilla": (81.0, 90.0, 69.0),
        }
        records = [
            {"case": seed, "method": name, "test frames %": each, "validation frames %": each}
            for name, percents in right.items()
            for seed, each in enumerate(percents)
        ]
        vanilla, rtho, *_ = paired(records).rows
        half = 4.302653 / np.sqrt(3)  # the 97.5 % point of Student's t with two degrees of freedom
        np.testing.assert_allclose(rtho[2:5], (2, 2 - half, 2 + half), rtol=1e-6)
        assert rtho[5:] == ("3 of 3", 0.25)
        np.testing.assert_allclose(vanilla[2:5], (0, -half, half), atol=1e-6)
        assert vanilla[5:] == ("1 of 3", 1.0)

    def test_one_seed_has_no_interval(self, folder):
        name, what, mean, *ends = folder.table("paired").rows[1][:5]
        assert (name, what, ends) == ("RTHO", "test frames %", [None, None])
        accuracies = {row[0].split(":")[0]: row[1] for row in folder.table("accuracy").rows}
        np.testing.assert_allclose(mean, accuracies["RTHO"] - accuracies["RS"], atol=1e-9)

    def test_there_are_pictures_of_hyperparameters_and_accuracy(self, folder):
        assert [item.name for item in folder.contents()] == [
            "hyper",
            "accuracy",
            "accuracy",
            "paired",
        ]
