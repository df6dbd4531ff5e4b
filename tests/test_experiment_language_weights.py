"""Weights of sources of text, in miniature."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rfho.datasets.text import decode
from rfho.experiments.language_weights import LANGUAGE_WEIGHTS, LanguageSettings
from rfho.experiments.language_weights.mixed_text import (
    SOURCES,
    descriptions,
    load_mixed_text,
    spoil,
)
from rfho.experiments.parts.transformer import Transformer
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

SETTINGS = LanguageSettings(
    context=16, valid=60, width=16, rate=0.01, horizon=40, steps=3, final=60
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("language", tmp_path_factory.mktemp("language") / "run")
    console = Console(file=io.StringIO())
    execute(LANGUAGE_WEIGHTS, SETTINGS, folder, command="", console=console)
    return folder


def test_the_clean_source_gains_weight_and_the_weights_stay_on_the_simplex(folder):
    weights = np.array([[row[source] for source in SOURCES] for row in folder.history()])
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert weights.min() >= 0
    assert weights[-1, 0] > 0.45
    assert weights[-1, 0] == weights[-1].max()


def test_models_of_three_mixtures_are_compared(folder):
    rows = {row[0]: row[1].mean for row in folder.table("loss").rows}
    assert rows["learned weights"] < rows["equal weights"] < np.log2(len(descriptions().alphabet))
    assert len(rows) == 3


def test_a_character_is_predicted_from_those_before_it_alone():
    transformer = Transformer(5, 16, width=16, heads=2, layers=1, key=jax.random.key(0))
    model = eqx.filter_jit(transformer)
    window = jnp.arange(16) % 5
    logits, other = (np.asarray(model(each)) for each in (window, window.at[4].set(0)))
    np.testing.assert_allclose(logits[:4], other[:4], atol=1e-12)
    assert np.abs(logits[4:] - other[4:]).max(axis=1).min() > 1e-6


def test_each_source_is_spoilt_in_its_way():
    parts = np.random.default_rng(0).integers(0, 50, (4, 200, 20), dtype=np.int32)
    clean, half, shuffled, random = spoil(parts, 50, np.random.default_rng(1)).swapaxes(0, 1)
    np.testing.assert_array_equal(clean, parts[0])
    assert np.mean(half == parts[1]) == pytest.approx(0.51, abs=0.03)
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(parts[2]))
    assert np.mean(shuffled == parts[2]) < 0.2
    assert np.mean(random == parts[3]) == pytest.approx(0.02, abs=0.01)


def test_validation_and_test_text_is_clean_and_not_trained_on():
    text = load_mixed_text("descriptions", 30, held_out=50, seed=0)
    plain = decode(descriptions())
    read = lambda window: "".join(text.alphabet[code] for code in window)  # noqa: E731
    assert all(read(window) in plain for window in (*text.valid, *text.test, *text.train[:, 0]))
    assert len({read(window) for window in (*text.valid, *text.test)}) == 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LanguageSettings(context=3000), "lower one of them"),
        (LanguageSettings(width=9), "must divide"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message, tmp_path):
    folder = create_run_folder("language", tmp_path / "run")
    with pytest.raises(SettingsError, match=message):
        LANGUAGE_WEIGHTS.run(settings, folder, Console(file=io.StringIO()))
