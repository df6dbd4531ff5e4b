"""Linear models with a penalty for each group of features, as scikit-learn's estimators.

from rfho.adapters.sklearn import GroupedClassifier
"""

import warnings
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from rfho.adapters.feature_groups import feature_groups
from rfho.adapters.grouped_fit import Fitted, Folds, fitted
from rfho.adapters.penalised_folds import CLASSES, NUMBERS, TWO_CLASSES, Task
from rfho.errors import positive_number

_NUMBERS = (np.float64, np.float32)
"""What tables hold; others are converted to the first, and single precision is not copied."""

_SILENT = 0.01
"""A group is silenced if its importance is below this part of an equal share."""


class _Grouped(BaseEstimator):
    """What both estimators share."""

    def __init__(
        self,
        *,
        cv: Any = 5,
        scale: bool = True,
        spread: float = 2.0,
        max_iter: int = 40,
        per_output: bool = False,
        random_state: int | None = 0,
    ) -> None:
        self.cv = cv
        self.scale = scale
        self.spread = spread
        self.max_iter = max_iter
        self.per_output = per_output
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _fit(
        self, task: Task, x: Any, y: np.ndarray, *, outputs: int, groups: Any, weights: Any
    ) -> Fitted:
        spread = positive_number(self.spread, "spread", type(self).__name__)
        names = getattr(self, "feature_names_in_", None)
        grouped = feature_groups(groups, None if names is None else list(names), x.shape[1])
        folds = self._folds(x, y)
        result = fitted(
            task,
            x,
            y,
            group=grouped.of_column,
            weights=_weights(weights, len(y), folds),
            folds=folds,
            outputs=outputs,
            per_output=self.per_output,
            scale=self.scale,
            spread=spread,
            steps=self.max_iter,
        )
        self.groups_ = grouped.names
        self.importance_ = result.importance
        self.penalties_ = result.found.penalties
        if not self.per_output:
            self.penalties_ = self.penalties_[:, 0]
        bar = _SILENT / len(self.groups_)
        moved = zip(self.groups_, self.importance_, strict=True)
        self.silenced_ = [name for name, share in moved if share < bar]
        self.shared_penalty_ = result.found.shared
        self.objective_path_ = np.asarray(result.found.values)
        self.n_iter_ = len(self.objective_path_)
        self.coef_, self.intercept_ = result.coef, result.intercept
        if not result.found.settled:
            warnings.warn(
                f"{type(self).__name__} found penalties, but its model is not yet at the minimum: remove "
                "features that repeat each other, or leave scale=True",
                ConvergenceWarning,
                stacklevel=3,
            )
        return result

    def _folds(self, x: Any, y: np.ndarray) -> Folds:
        """Those of ``cv``; a number of folds is lowered to what a small table allows, and drawn at random."""
        if not isinstance(self.cv, int):
            splitter: Any = check_cv(self.cv)
            return list(splitter.split(x, y))
        fewest = len(y)
        if is_classes := isinstance(self, ClassifierMixin):
            fewest = int(np.bincount(y)[np.bincount(y) > 0].min())
        count = min(self.cv, max(fewest, 2), len(y))
        stratified = is_classes and fewest >= count
        kind = StratifiedKFold if stratified else KFold
        return list(kind(count, shuffle=True, random_state=self.random_state).split(x, y))

    def _linear(self, x: Any) -> np.ndarray:
        check_is_fitted(self)
        x = validate_data(self, x, accept_sparse="csr", reset=False)
        return np.asarray(x @ np.atleast_2d(self.coef_).T + self.intercept_)


class GroupedClassifier(ClassifierMixin, _Grouped):
    """Logistic regression with a penalty for each group of features, learned by hypergradients.

    Where features come from sources of different worth (measurements beside noise, several sensors, words
    beside dates) one penalty is a compromise. Here each group has its own: all of them are learned together,
    from folds, by implicit differentiation, in the time that a few fits take.

    Args:
        cv: folds, as in scikit-learn: a number, a splitter, an iterable of splits; a `PredefinedSplit` for a
            validation set. Of a number the folds are shuffled, and stratified where classes allow it.
        scale: bring columns to unit variance first, so that a penalty means the same for all of a group.
        spread: τ, how far log penalties are expected to lie from the one that all would share, in natural
            logarithms. It keeps many penalties from fitting the folds: lower is more careful.
        max_iter: outer steps at most; the search ends earlier when the folds gain nothing.
        per_output: a penalty for each group and class.
        random_state: of the folds.

    Attributes:
        penalties_: of each group, in the scale of ``1 / C``; shape (groups,), or (groups, classes).
        groups_: the groups' names.
        importance_: the share of each group in what moves the predictions, by deviation; sums to 1.
        silenced_: the names of groups that count for nothing.
        shared_penalty_: the best penalty for all, from which the search started.
        objective_path_: what the search minimised: log loss of examples left out, and the prior.
        coef_, intercept_, classes_, n_iter_: as usual.

    Cost:
        About 3 s of compilation for the first table of a size; then some 20 outer steps, each of a few Newton
        steps on all folds at once.

    Example:
        >>> import numpy as np
        >>> from rfho.adapters.sklearn import GroupedClassifier
        >>> rng = np.random.default_rng(0)
        >>> table = rng.normal(size=(120, 12))
        >>> answer = table[:, :2].sum(axis=1) > 0
        >>> groups = ["signal"] * 2 + ["noise"] * 10
        >>> model = GroupedClassifier().fit(table, answer, groups=groups)
        >>> bool(model.importance_[0] > 0.9)
        True
    """

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Any:
        """Learns penalties and model.

        Args:
            X: the table: an array, a DataFrame, a sparse matrix.
            y: classes.
            groups: a label for each column; a mapping from names to lists of columns; ``"prefix"``, for the
                part of the columns' names before ``__``; a fitted ColumnTransformer; None for a penalty per
                column.
            sample_weight: of examples, in the model and in the folds.

        Raises:
            ValueError: the table, the groups or the folds do not fit each other.
        """
        x, y = validate_data(self, X, y, accept_sparse="csr", dtype=_NUMBERS)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class, {self.classes_[0]!r}, but a classifier needs examples of two or more classes"
            )
        two = len(self.classes_) == 2
        outputs = 1 if two else len(self.classes_)
        task = TWO_CLASSES if two else CLASSES
        self._fit(task, x, numbers, outputs=outputs, groups=groups, weights=sample_weight)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits: shape (n,) of two classes, (n, classes) of more."""
        logits = self._linear(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, shape (n, classes)."""
        logits = self._linear(X)
        if logits.shape[1] > 1:
            return softmax(logits, axis=1)
        yes = expit(logits)
        return np.concatenate([1 - yes, yes], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest classes."""
        logits = self._linear(X)
        if logits.shape[1] == 1:
            return self.classes_[(logits[:, 0] > 0).astype(int)]
        return self.classes_[np.argmax(logits, axis=1)]


class GroupedRegressor(MultiOutputMixin, RegressorMixin, _Grouped):
    """Ridge regression with a penalty for each group of features (banded ridge), learned by hypergradients.

    Args:
        cv: as `GroupedClassifier`; so are ``scale``, ``spread``, ``max_iter`` and ``random_state``.
        per_output: a penalty for each group and target.

    Attributes:
        penalties_: of each group, in the scale of ``alpha`` for targets of unit variance.
        groups_, importance_, silenced_, shared_penalty_, n_iter_, coef_, intercept_: as `GroupedClassifier`.
        objective_path_: half of the logarithm of the squared error of examples left out, and the prior.

    Example:
        >>> import numpy as np
        >>> from rfho.adapters.sklearn import GroupedRegressor
        >>> rng = np.random.default_rng(0)
        >>> table = rng.normal(size=(120, 12))
        >>> model = GroupedRegressor().fit(table, table[:, 0], groups=[0] + [1] * 11)
        >>> bool(model.importance_[0] > 0.9)
        True
    """

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Any:
        """Learns penalties and model; as `GroupedClassifier.fit`, where ``y`` are numbers, (n,) or (n, targets)."""
        x, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=_NUMBERS, multi_output=True, y_numeric=True
        )
        several = y.ndim == 2
        targets = y if several else y[:, None]
        result = self._fit(
            NUMBERS,
            x,
            targets,
            outputs=targets.shape[1],
            groups=groups,
            weights=sample_weight,
        )
        if not several:
            self.coef_, self.intercept_ = result.coef[0], float(result.intercept[0])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Numbers, in the shape of the targets."""
        found = self._linear(X)
        return found[:, 0] if self.coef_.ndim == 1 else found


def _weights(given: Any, count: int, folds: Folds) -> np.ndarray:
    """A weight for each example.

    Raises:
        ValueError: they are not as many, negative, or nothing is left of a fold.
    """
    weights = np.ones(count) if given is None else np.asarray(given, float)
    weights = np.full(count, float(weights)) if weights.ndim == 0 else weights
    if weights.shape != (count,):
        raise ValueError(
            f"sample_weight has shape {weights.shape}, but there are {count} examples: Sample weights must be "
            "1D array or scalar, one for each"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("sample_weight must be finite, and 0 or more")
    if not weights.any():
        raise ValueError(
            "the weights of all examples are zero: leave out sample_weight, or some of it"
        )
    if not any(weights[outside].any() for _, outside in folds):
        raise ValueError("no example that a fold leaves out has a weight: give other folds by cv=")
    return weights
