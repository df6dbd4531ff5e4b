"""One penalty per feature, in miniature."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from rich.console import Console

import rfho
from rfho.experiments import feature_penalties
from rfho.experiments.feature_penalties import (
    FEATURE_PENALTIES,
    PenaltySettings,
    draw,
    methods,
    steady_seconds,
    training,
)
from rfho.experiments.feature_penalties.data import as_sparse, load_feature_split
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

SETTINGS = PenaltySettings(
    train=100, valid=300, test=300, noise=64, inner=5, products=5, settle=100, grid=4, steps=12,
    outer_rate=0.5,
)  # fmt: skip


THREE = ("implicit, CG", "implicit, fixed point", "reverse")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = create_run_folder("feature-penalties", tmp_path_factory.mktemp("penalties") / "run")
    console = Console(file=io.StringIO())
    three = {name: methods(SETTINGS)[name] for name in THREE}
    with pytest.MonkeyPatch.context() as patch:  # five would take long to compile
        patch.setattr(feature_penalties, "methods", lambda settings: three)
        execute(FEATURE_PENALTIES, SETTINGS, folder, command="", console=console)
    return folder


def test_every_method_lowers_the_validation_loss_of_the_best_shared_penalty(folder):
    rows = [row for row in folder.history() if "step" in row]
    assert {row["method"] for row in rows} == set(THREE)
    for name in THREE:
        losses = [row["validation loss"] for row in rows if row["method"] == name]
        assert len(losses) == SETTINGS.steps
        assert losses[-1] < losses[0], name


def test_models_trained_anew_are_better_than_with_one_penalty(folder):
    shared, *learned = folder.table("results").rows
    assert shared[0] == "one shared penalty, by grid"
    assert max(row[4] for row in learned) > shared[4]


def test_features_without_information_are_penalised_more(folder):
    data = load_feature_split("digits", (100, 300, 300), noise=64, words=0, seed=0)
    hyper = folder.arrays("penalties")["implicit-CG"]
    pixels, noise = (np.mean(hyper[data.groups[name]]) for name in ("pixels", "noise"))
    assert noise > pixels + 1


def test_sparse_inputs_change_no_hypergradient():
    """Nor are they turned into dense ones: the problem holds nothing of the size of all inputs."""
    generator = np.random.default_rng(0)
    dense = np.where(generator.random((30, 12)) < 0.2, generator.normal(size=(30, 12)), 0)
    dense = dense.astype(np.float32)
    labels = jnp.asarray(generator.integers(0, 3, 30))
    split = load_feature_split("digits", (10, 10, 10), noise=0, words=0, seed=0)
    found = []
    for inputs in (as_sparse(sp.csr_array(dense)), jnp.asarray(dense)):
        data = split._replace(
            train=(inputs, labels), valid=(inputs, labels), features=12, classes=3
        )
        problem = training(data, SETTINGS, jnp.zeros((12, 3), jnp.float32), 5)
        hyper = jnp.full(12, -2.0, jnp.float32)
        found.append(rfho.hyper_gradient(problem, hyper).hypergradient)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert np.linalg.norm(found[1]) > 1e-4
    assert as_sparse(sp.csr_array(dense)).data.size == np.count_nonzero(dense) < dense.size / 2


def test_the_seconds_of_compiling_are_not_drawn():
    rows = [
        {"method": "a", "step": k, "seconds": s, "validation loss": 1.0}
        for k, s in ((1, 90.0), (2, 1.0), (3, 2.0))
    ]
    (line,) = draw({"a": rows}).axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), [1.5, 2.5, 4.5])


def test_steps_of_before_a_resumption_are_taken_to_last_as_long_as_others():
    rows = [{"seconds": s, "validation loss": 1.0} for s in (None, None, 80.0, 1.0, 3.0, 2.0)]
    np.testing.assert_allclose(steady_seconds(rows), [2, 2, 2, 1, 3, 2])
    assert np.isnan(steady_seconds(rows[:3])).all()


def test_a_set_that_is_too_small_is_refused(tmp_path):
    folder = create_run_folder("feature-penalties", tmp_path / "run")
    with pytest.raises(SettingsError, match="lower train, valid or test"):
        FEATURE_PENALTIES.run(PenaltySettings(train=1500), folder, Console(file=io.StringIO()))
