"""Linear models with a penalty for each group: right models, honest groups, scikit-learn's own conformance."""

import functools
import warnings

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from benchmarks.compilations import compilations
from rfho.adapters.feature_groups import feature_groups
from rfho.adapters.grouped_fit import _scales
from rfho.adapters.sklearn import GroupedClassifier, GroupedRegressor

pytestmark = pytest.mark.usefixtures("unchecked")

NOISE = 24
GROUPS = ["signal"] * 4 + [f"noise {i}" for i in range(4) for _ in range(NOISE // 4)]


@functools.cache
def table(classes=3):
    """Four features that tell, a crowd that does not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4 + NOISE))
    logits = 2 * x[:, :4] @ rng.normal(size=(4, classes))
    y = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    names = np.array(["ash", "beech", "cedar"])
    return x[:100], names[y[:100]], x[100:], names[y[100:]]


@functools.cache
def model():
    x, y, _, _ = table()
    return GroupedClassifier(cv=2).fit(x, y, groups=GROUPS)


def test_noise_is_found_and_the_test_loss_falls():
    x, y, x_test, y_test = table()
    shared = LogisticRegression(C=1 / model().shared_penalty_).fit(x, y)
    ours = log_loss(y_test, model().predict_proba(x_test))
    assert ours < 0.95 * log_loss(y_test, shared.predict_proba(x_test))
    assert model().importance_[0] > 0.6
    assert model().penalties_[0] < model().penalties_[1:].min()
    assert model().groups_[0] == "signal"
    assert model().importance_.sum() == pytest.approx(1)
    assert model().objective_path_[-1] < model().objective_path_[0]


def test_the_model_is_that_of_scikit_learn_under_the_penalties_found():
    x, y, x_test, _ = table()
    scale = StandardScaler().fit(x)
    of_column = model().penalties_[[model().groups_.index(group) for group in GROUPS]]
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
    theirs.fit(scale.transform(x) / np.sqrt(of_column), y)
    expected = theirs.predict_proba(scale.transform(x_test) / np.sqrt(of_column))
    np.testing.assert_allclose(model().predict_proba(x_test), expected, atol=2e-3)


def test_the_regressor_is_ridge_under_the_penalties_found():
    x, _, x_test, _ = table()
    y = 100 + 10 * x[:, 0]
    ours = GroupedRegressor(cv=2, max_iter=3).fit(x, y, groups=GROUPS)
    scale, size = StandardScaler().fit(x), y.std()
    roots = np.sqrt(ours.penalties_[[ours.groups_.index(group) for group in GROUPS]])
    theirs = Ridge(alpha=1.0).fit(scale.transform(x) / roots, (y - y.mean()) / size)
    expected = y.mean() + size * theirs.predict(scale.transform(x_test) / roots)
    np.testing.assert_allclose(ours.predict(x_test), expected, rtol=1e-4)


def test_a_second_table_of_its_size_compiles_nothing():
    _, _, x, y = table()
    _ = model()
    with jax.log_compiles(False), compilations() as programs:
        GroupedClassifier(cv=2, max_iter=3, random_state=1).fit(x[:99], y[:99], groups=GROUPS)
        compiled_for_the_fit = len(programs)
        jax.jit(lambda number: number + 41)(1.0)
    assert compiled_for_the_fit == 0 < len(programs)


def test_sparse_and_dense_tables_are_one_to_it():
    x, y, _, _ = table()
    sparse = sp.csr_array(np.where(x > 0.5, x, 0.0))
    ours = GroupedClassifier(max_iter=2, cv=2)
    of_sparse = clone(ours).fit(sparse, y, groups=GROUPS)
    of_dense = clone(ours).fit(sparse.toarray(), y, groups=GROUPS)
    np.testing.assert_allclose(of_sparse.coef_, of_dense.coef_, atol=5e-3)
    assert of_sparse.predict_proba(sparse).shape == (100, 3)


@pytest.mark.parametrize("of", [np.asarray, sp.csr_array])
def test_a_constant_column_keeps_its_size_and_single_precision_its_mean(of):
    rng = np.random.default_rng(0)
    x = np.stack([np.full(5000, 0.1), 1000 + rng.normal(size=5000)], axis=1).astype(np.float32)
    size = _scales(of(x), np.ones(5000), scale=True).size
    np.testing.assert_allclose(size, [1.0, x[:, 1].astype(float).std()], rtol=1e-6)


def test_a_validation_set_may_take_the_place_of_folds():
    x, y, _, _ = table()
    fold = PredefinedSplit([-1] * 20 + [0] * 40 + [1] * 40)
    ours = GroupedClassifier(cv=fold, max_iter=2).fit(x, y, groups=GROUPS)
    assert ours.coef_.shape == (3, 28)


def test_an_example_without_weight_is_none():
    x, y, x_test, _ = table()
    far = x.copy()
    far[:20] *= -50
    folds = [(np.arange(0, 60), np.arange(60, 100)), (np.arange(40, 100), np.arange(20, 40))]
    weights = np.r_[np.zeros(20), np.ones(80)]
    ours = GroupedClassifier(cv=folds, max_iter=2)
    one = clone(ours).fit(x, y, groups=GROUPS, sample_weight=weights).predict_proba(x_test)
    other = clone(ours).fit(far, y, groups=GROUPS, sample_weight=weights).predict_proba(x_test)
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.soak
def test_each_class_may_have_penalties_of_its_own():
    x, y, _, _ = table()
    ours = GroupedClassifier(per_output=True, max_iter=2, cv=2).fit(x, y, groups=GROUPS)
    assert ours.penalties_.shape == (5, 3)


@pytest.mark.parametrize(
    ("groups", "names", "of_column"),
    [
        (None, ["a__x", "a__y", "b__z"], [0, 1, 2]),
        ("prefix", ["a", "b"], [0, 0, 1]),
        ({"left": ["a__x"], "right": ["a__y", 2]}, ["left", "right"], [0, 1, 1]),
        ([7, 8, 7], [7, 8], [0, 1, 0]),
    ],
)
def test_groups_are_understood_however_they_are_said(groups, names, of_column):
    found = feature_groups(groups, ["a__x", "a__y", "b__z"], 3)
    assert found.names == names
    assert found.of_column.tolist() == of_column


def test_groups_of_a_column_transformer():
    raw = np.array([[1.0, 7, 0], [2.0, 8, 0], [4.0, 7, 0]])
    parts = [("number", StandardScaler(), [0]), ("word", OneHotEncoder(), [1])]
    transformer = ColumnTransformer(parts, sparse_threshold=0)
    arrays = transformer.fit_transform(raw)
    expected = (["number", "word"], [0, 1, 1])
    found = feature_groups(transformer, None, arrays.shape[1])
    assert (found.names, found.of_column.tolist()) == expected
    found = feature_groups("prefix", list(transformer.get_feature_names_out()), 3)
    assert (found.names, found.of_column.tolist()) == expected


@pytest.mark.parametrize(
    ("groups", "columns", "message"),
    [
        ([1, 2], None, "2 labels, but the table has 3 columns"),
        ({"a": [0, 1]}, None, "column 2 is in no group"),
        ({"a": [0, 1], "b": [1, 2]}, None, "column 1 is in two groups, one of them 'b'"),
        ({"a": ["w"]}, ["x", "y", "z"], "'w', which is no column"),
        ("prefix", None, "columns have names"),
        ("suffix", ["x", "y", "z"], 'the only word for it is "prefix"'),
    ],
)
def test_groups_that_do_not_fit_are_refused_by_name(groups, columns, message):
    with pytest.raises(ValueError, match=message):
        feature_groups(groups, columns, 3)


def test_misuse_is_a_sentence():
    x, y, _, _ = table()
    with pytest.raises(ValueError, match="y has one class"):
        GroupedClassifier().fit(x[:5], ["ash"] * 5)
    with pytest.raises(ValueError, match="all examples are zero"):
        GroupedClassifier().fit(x, y, sample_weight=np.zeros(100))
    for spread in (0, -1.0, np.nan, "wide"):
        with pytest.raises(ValueError, match=r"spread=.*must be a positive number"):
            GroupedClassifier(spread=spread).fit(x, y)
    with pytest.raises(NotFittedError):
        GroupedClassifier().predict(x)


SINGLE = {
    "check_sample_weight_equivalence_on_dense_data": "computed in single precision",
    "check_sample_weight_equivalence_on_sparse_data": "computed in single precision",
}


@pytest.mark.soak
@pytest.mark.parametrize("estimator", [GroupedRegressor(), GroupedClassifier()])
def test_scikit_learns_own_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        check_estimator(estimator, expected_failed_checks=SINGLE, on_skip=None)
