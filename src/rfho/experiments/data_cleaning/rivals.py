"""What finds wrong labels without hypergradients, beside the weights."""

import importlib
from importlib.util import find_spec

import numpy as np
from jaxtyping import Bool

from rfho.experiments.data_cleaning.data import CleaningData
from rfho.experiments.data_cleaning.noise_matrix import wrong_labels

NOISE_MATRIX, CLEANLAB = "noise matrix", "cleanlab"

Suspects = dict[str, Bool[np.ndarray, " n"]]
"""By the name of who suspects them."""


def suspected(data: CleaningData) -> Suspects:
    """By expectation-maximisation with a noise matrix, and by cleanlab if it is installed."""
    found = wrong_labels(data.train, data.valid, len(data.class_names), seed=data.seed)
    suspects = {NOISE_MATRIX: found.suspects}
    if find_spec("cleanlab") is not None:
        suspects[CLEANLAB] = _by_cleanlab(data)
    return suspects


def _by_cleanlab(data: CleaningData) -> Bool[np.ndarray, " n"]:
    """As cleanlab recommends: across five folds, by logistic regression; it has no use for clean examples."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    x, given = data.train
    model = LogisticRegression(max_iter=2000)
    predicted = cross_val_predict(model, x, given, cv=5, method="predict_proba")
    cleanlab = importlib.import_module("cleanlab.filter")
    return np.asarray(cleanlab.find_label_issues(np.asarray(given), predicted), bool)
