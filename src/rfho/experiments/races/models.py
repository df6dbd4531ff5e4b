r"""What is fitted under penalties: logistic regression for classes, ridge regression for numbers.

Both under a penalty of one, of features scaled by the roots of their penalties, and both twice: by scikit-learn
for those who cannot differentiate, and in JAX,

.. math:: L(W) = \tfrac1n \sum_i \ell(y_i, W^\top x_i + b) + \tfrac1{2n} \lVert W \rVert^2 ,

with the same minimum.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.metrics import log_loss, r2_score

from rfho.adapters.sklearn import GroupedClassifier, GroupedRegressor


class Model(NamedTuple):
    """A kind of model.

    Attributes:
        new: one of scikit-learn, under a penalty of one; of iterations at most so many, where it has iterations.
        loss: of a fitted one, of inputs and answers: the mean over examples of ℓ.
        score: of the same in per cent, the larger the better: accuracy, or explained variance.
        of_outputs: ℓ in JAX, of W^T x + b and of y, a mean over examples.
        iterates: whether fewer iterations are a cheaper, worse model.
        tools: what one would fit otherwise, on all examples, by name.
    """

    new: Callable[[int], Any]
    loss: Callable[[Any, np.ndarray, np.ndarray], float]
    score: Callable[[Any, np.ndarray, np.ndarray], float]
    of_outputs: Callable[[Array, Array], Float[Array, ""]]
    iterates: bool
    tools: dict[str, Callable[[], Any]]

    def fitted(self, model: Any, x: np.ndarray, y: np.ndarray) -> Any:
        """The model after its fit, which may have ended for want of iterations."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # of what scikit-learn's next release does
            return model.fit(x, y)


def _class_loss(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(log_loss(y, model.predict_proba(x), labels=model.classes_))


def _number_loss(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(0.5 * np.mean((model.predict(x) - y) ** 2))


def _accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    # Not the model's own score, which is another where folds choose by another.
    return 100 * float(np.mean(model.predict(x) == y))


def _explained(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return 100 * float(r2_score(y, model.predict(x)))


def _cross_entropy(outputs: Array, y: Array) -> Float[Array, ""]:
    """Of logits; one column is the logit of the second of two classes."""
    if outputs.shape[1] == 1:
        outputs = jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=1)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


def _half_square(outputs: Array, y: Array) -> Float[Array, ""]:
    return 0.5 * jnp.mean((outputs[:, 0] - y) ** 2)


OWN = "GroupedClassifier", "GroupedRegressor"
"""Those of the tools that are rfho's."""

CLASSES = Model(
    new=lambda iterations: LogisticRegression(
        C=1.0, max_iter=iterations, tol=1e-4, warm_start=True
    ),
    loss=_class_loss,
    score=_accuracy,
    of_outputs=_cross_entropy,
    iterates=True,
    tools={
        "GroupedClassifier": GroupedClassifier,
        "LogisticRegressionCV": lambda: LogisticRegressionCV(
            Cs=10, max_iter=500, scoring="neg_log_loss"
        ),
        "LogisticRegression": lambda: LogisticRegression(max_iter=500),
    },
)

NUMBERS = Model(
    new=lambda iterations: Ridge(alpha=1.0),
    loss=_number_loss,
    score=_explained,
    of_outputs=_half_square,
    iterates=False,
    tools={
        "GroupedRegressor": GroupedRegressor,
        "RidgeCV": lambda: RidgeCV(alphas=np.logspace(-3, 4, 15)),
        "Ridge": Ridge,
    },
)
