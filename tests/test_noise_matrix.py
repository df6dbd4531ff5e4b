"""Wrong labels by expectation-maximisation across folds with a noise matrix."""

import numpy as np
import pytest
from scipy.special import log_softmax

from rfho.datasets import balanced_subset, flip_labels, load_digits
from rfho.experiments.data_cleaning import rivals
from rfho.experiments.data_cleaning.data import load_cleaning_data
from rfho.experiments.data_cleaning.noise_matrix import (
    largest_expected_f1,
    regression,
    wrong_labels,
)
from rfho.experiments.data_cleaning.report import detection


@pytest.fixture(scope="module")
def digits():
    """600 images, their labels, and 120 others with clean labels."""
    pool = load_digits()
    chosen = balanced_subset(pool.labels, 720, seed=3)
    chosen = np.random.default_rng(3).permutation(chosen)
    x, y = pool.images[chosen].reshape(720, -1), pool.labels[chosen]
    return (x[:600], y[:600]), (x[600:], y[600:])


def nobody(clean):
    return tuple(part[:0] for part in clean)


@pytest.mark.parametrize(("share", "least"), [(0.1, 0.88), (0.5, 0.94)])
def test_labels_flipped_at_random_are_found_without_a_clean_example(digits, share, least):
    (x, y), clean = digits
    given = flip_labels(y, round(share * 600), classes=10, seed=1).labels
    found = wrong_labels((x, given), nobody(clean), 10)
    assert detection(found.suspects, given != y)["F1"] > least
    assert np.diag(found.noise).mean() == pytest.approx(1 - share, abs=0.05)
    np.testing.assert_allclose(found.noise.sum(axis=1), 1.0)


def test_clean_examples_tell_a_class_from_what_most_of_it_is_called(digits):
    (x, y), clean = digits
    moved = np.random.default_rng(0).random(600) < 0.7
    given = np.where(moved, (y + 1) % 10, y)
    found = wrong_labels((x, given), clean, 10)
    assert detection(found.suspects, moved)["F1"] > 0.9
    # T names what is given as what, if a fifth nearer to noise that is alike for all classes.
    assert np.array_equal(found.noise.argmax(axis=1), (np.arange(10) + 1) % 10)
    assert 0.5 < found.noise.max(axis=1).mean() < 0.7


def test_scores_are_probabilities_that_are_kept(digits):
    (x, y), clean = digits
    given = flip_labels(y, 180, classes=10, seed=2).labels
    scores = wrong_labels((x, given), nobody(clean), 10).scores
    assert scores.min() >= 0
    assert scores.max() <= 1
    # As many are wrong as the scores say.
    assert scores.sum() == pytest.approx(180, rel=0.1)
    assert (given != y)[scores > 0.9].mean() > 0.95


def test_two_classes_are_a_case_like_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = (x @ [3.0, 1.0] > 0).astype(int)
    wrong = rng.random(300) < 0.2
    none = np.zeros((0, 2)), np.zeros(0, int)
    found = wrong_labels((x, np.where(wrong, 1 - y, y)), none, 2)
    assert detection(found.suspects, wrong)["F1"] > 0.8


def test_the_regression_is_a_minimum_of_what_it_says():
    rng = np.random.default_rng(0)
    x, likelihood, trust = rng.normal(size=(40, 3)), rng.random((40, 4)), rng.random(40)

    def loss(w):
        evidence = np.sum(np.exp(log_softmax(x @ w, axis=1)) * likelihood, axis=1)
        return -trust @ np.log(evidence) + np.sum(w**2)

    found = regression(x, likelihood, trust, start=np.zeros((3, 4)), l2=2.0)
    for _ in range(5):
        away = 1e-2 * rng.normal(size=(3, 4))
        assert loss(found) < min(loss(found + away), loss(found - away))


def test_the_set_has_the_largest_expected_f1_of_all():
    scores = np.array([0.2, 0.9, 0.5, 0.7])
    order = np.argsort(-scores)
    expected = [2 * scores[order[:k]].sum() / (k + scores.sum()) for k in range(1, 5)]
    assert largest_expected_f1(scores).sum() == 1 + int(np.argmax(expected))
    assert largest_expected_f1(scores)[order[0]]


def test_cleanlab_is_asked_where_it_is_installed(monkeypatch):
    data = load_cleaning_data("digits", (120, 100, 100), noise=0.5, seed=0)
    assert rivals.NOISE_MATRIX in rivals.suspected(data)
    asked = {}

    class Filter:
        @staticmethod
        def find_label_issues(labels, predicted):
            asked.update(labels=labels, predicted=predicted)
            return predicted.argmax(axis=1) != labels

    monkeypatch.setattr(rivals, "find_spec", lambda name: name)
    monkeypatch.setattr(rivals.importlib, "import_module", {"cleanlab.filter": Filter}.get)
    suspects = rivals.suspected(data)[rivals.CLEANLAB]
    assert suspects.shape == asked["labels"].shape == (120,)
    assert asked["predicted"].shape == (120, 10)
