r"""Wrong labels by expectation-maximisation across folds, with a matrix of label noise; no hypergradients.

A hidden label y of an example is given as ỹ with probability T[y, ỹ]. Softmax regression on the hidden labels,

.. math:: \min_W \sum_i -\log \sum_y p_W(y \mid x_i)\, T[y, \tilde y_i]
          + \sum_j -\log p_W(y_j \mid x_j) + \tfrac12 \ell_2 \lVert W \rVert^2 ,

over examples i that may have a wrong label and clean ones j, is fitted on every fold's complement; T and a
temperature τ are fitted to its predictions of what it has not seen. What confident learning (arXiv 1911.00068)
counts is estimated here by likelihood. It is what weights learned by hypergradients have to be compared with.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import log_softmax, softmax

Matrix = Float[np.ndarray, "classes classes"]
Logits = Float[np.ndarray, "n classes"]

FOLDS, ROUNDS, SEVERAL = 5, 4, (1.0, 10.0, 30.0)
"""Of cross-fitting; of each start; and the penalties ℓ_2 that are tried beside the first."""

_FIRST = 3.0


class Evidence(NamedTuple):
    """All examples, those that may have a wrong label first.

    Attributes:
        x: features and a column of ones.
        given: labels, the last ones of which are right.
        doubtful: how many of them may be wrong.
        fold: of each example; it is predicted by a model that has not seen it.
        classes: how many there are.
    """

    x: Float[np.ndarray, "n features"]
    given: Int[np.ndarray, " n"]
    doubtful: int
    fold: Int[np.ndarray, " n"]
    classes: int


class Fit(NamedTuple):
    """Models of all folds, and the noise that they see.

    Attributes:
        weights: W of each fold.
        logits: τ z, out of fold.
        noise: T.
        loss: the negative log likelihood of given labels out of fold, with the priors of T and τ.
    """

    weights: Float[np.ndarray, "folds features classes"]
    logits: Logits
    noise: Matrix
    loss: float


class WrongLabels(NamedTuple):
    """What was found.

    Attributes:
        scores: the probability that the given label is wrong, of each example.
        suspects: the set with the largest expected F1.
        noise: T, how often which class is given as which.
    """

    scores: Float[np.ndarray, " n"]
    suspects: Bool[np.ndarray, " n"]
    noise: Matrix


def wrong_labels(
    given: tuple[np.ndarray, np.ndarray],
    clean: tuple[np.ndarray, np.ndarray],
    classes: int,
    *,
    seed: int = 0,
) -> WrongLabels:
    """Which of the labels ``given`` are wrong.

    Args:
        given: inputs as rows, and labels some of which are wrong.
        clean: inputs and right labels; may be empty.
        classes: labels are 0, …, classes - 1.
        seed: of the folds.
    """
    x, labels = (np.concatenate(parts) for parts in zip(given, clean, strict=True))
    x = np.column_stack([np.asarray(x, float), np.ones(len(x))])
    fold = np.random.default_rng(seed).permutation(len(x)) % FOLDS
    seen = Evidence(x, np.asarray(labels, int), len(given[1]), fold, classes)
    found = min(_from_all_starts(seen), key=lambda fit: fit.loss)
    others = [_rounds(seen, found.noise, 2, l2=l2, weights=found.weights) for l2 in SEVERAL]
    found = min([found, *others], key=lambda fit: fit.loss)
    first = _doubt(seen, found)
    second = first
    for _ in range(2):
        second = _doubt(seen, _look_again(seen, found, second))
    scores = (first + second) / 2
    return WrongLabels(scores, largest_expected_f1(scores), found.noise)


def largest_expected_f1(scores: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The k largest, where 2 Σ_{i≤k} s_(i) / (k + Σ_i s_i) is largest.

    Example:
        >>> largest_expected_f1(np.array([0.9, 0.1, 0.6])).tolist()
        [True, False, True]
    """
    order = np.argsort(-scores, kind="stable")
    expected = 2 * np.cumsum(scores[order]) / (np.arange(1, len(scores) + 1) + scores.sum())
    suspects = np.zeros(len(scores), bool)
    suspects[order[: np.argmax(expected) + 1]] = True
    return suspects


def _from_all_starts(seen: Evidence) -> Iterator[Fit]:
    """From little noise everywhere; from what a clean model sees; from the first with its classes named anew."""
    some = 0.3 if seen.classes > 2 else 0.2
    first = _rounds(seen, _spread(seen.classes, some), ROUNDS)
    yield first
    if seen.doubtful == len(seen.given):
        return
    yield _rounds(seen, _seen_by_clean_model(seen), ROUNDS)
    clean = np.eye(seen.classes)[seen.given[seen.doubtful :]]
    # Hidden class a is called what the clean examples that look like a are called.
    fits = log_softmax(first.logits[seen.doubtful :], axis=1).T @ clean
    hidden, called = linear_sum_assignment(-fits)
    if np.any(hidden != called):
        noise = np.empty_like(first.noise)
        noise[called] = first.noise[hidden]
        yield _rounds(seen, noise, ROUNDS)


def _rounds(
    seen: Evidence,
    noise: Matrix,
    rounds: int,
    *,
    l2: float = _FIRST,
    weights: np.ndarray | None = None,
) -> Fit:
    """Models under T, then T under the models, in turn; T is as likely to stay as to move."""
    if weights is None:
        weights = np.zeros((FOLDS, seen.x.shape[1], seen.classes))
    fit = Fit(weights, np.zeros((len(seen.x), seen.classes)), noise, np.inf)
    for _ in range(rounds):
        fit = _cross_fitted(seen, fit, _likelihood(seen, fit.noise), np.ones(len(seen.x)), l2=l2)
    return fit


def _look_again(seen: Evidence, found: Fit, doubt: np.ndarray) -> Fit:
    """By models of the given labels, each for as much as it is believed."""
    trust = np.append(1 - doubt, np.ones(len(seen.x) - seen.doubtful))
    as_given = np.eye(seen.classes)[seen.given]
    return _cross_fitted(seen, found, as_given, trust, l2=_FIRST)


def _cross_fitted(
    seen: Evidence, before: Fit, likelihood: Logits, trust: np.ndarray, *, l2: float
) -> Fit:
    """Each fold's model of the other folds, from where it was; then τ and T."""
    weights, logits = np.empty_like(before.weights), np.empty_like(before.logits)
    for k in range(FOLDS):
        rest = seen.fold != k
        weights[k] = regression(
            seen.x[rest], likelihood[rest], trust[rest], start=before.weights[k], l2=l2
        )
        logits[~rest] = seen.x[~rest] @ weights[k]
    temperature, noise, loss = _noise_of(seen, logits, before.noise)
    return Fit(weights, temperature * logits, noise, loss)


def regression(
    x: Float[np.ndarray, "n features"],
    likelihood: Logits,
    trust: Float[np.ndarray, " n"],
    *,
    start: Float[np.ndarray, "features classes"],
    l2: float,
) -> Float[np.ndarray, "features classes"]:
    """W that minimises Σ_i -trust_i log Σ_y p_W(y | x_i) likelihood_i[y] + ℓ_2/2 ‖W‖²."""

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(start.shape)
        p = softmax(x @ w, axis=1)
        losses, posterior = _posterior(p, likelihood)
        slope = x.T @ (trust[:, None] * (p - posterior)) + l2 * w
        return trust @ losses + 0.5 * l2 * np.sum(w**2), slope.ravel()

    options = {"maxiter": 100, "ftol": 1e-7}
    found = minimize(value_and_slope, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape)


def _noise_of(seen: Evidence, logits: Logits, before: Matrix) -> tuple[float, Matrix, float]:
    """τ and T for logits out of fold, near τ = 1 and noise that is alike for all classes."""
    often = softmax(logits, axis=1).mean(axis=0)
    prior = seen.doubtful / (5 * seen.classes) * _spread(seen.classes, 1 - often @ np.diag(before))
    labels = np.eye(seen.classes)[seen.given[: seen.doubtful]]

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        tau, table = np.exp(flat[0]), flat[1:].reshape(before.shape)
        noise = softmax(table, axis=1)
        p = softmax(tau * logits, axis=1)
        losses, posterior = _posterior(p, _likelihood(seen, noise))
        counts = posterior[: seen.doubtful].T @ labels + prior
        by_table = noise * counts.sum(axis=1, keepdims=True) - counts
        by_tau = tau * np.sum((p - posterior) * logits) + 10 * flat[0]
        value = losses.sum() - np.sum(prior * log_softmax(table, axis=1)) + 5 * flat[0] ** 2
        return value, np.append(by_tau, by_table)

    start = np.append(0.0, np.log(np.maximum(before, 1e-6)))
    found = minimize(value_and_slope, start, jac=True, method="L-BFGS-B")
    noise = softmax(found.x[1:].reshape(before.shape), axis=1)
    return float(np.exp(found.x[0])), noise, float(found.fun)


def _doubt(seen: Evidence, fit: Fit) -> Float[np.ndarray, " n"]:
    """The probability of every label but the given one, given that one."""
    _, posterior = _posterior(softmax(fit.logits, axis=1), _likelihood(seen, fit.noise))
    return 1 - posterior[np.arange(seen.doubtful), seen.given[: seen.doubtful]]


def _posterior(p: Logits, likelihood: Logits) -> tuple[np.ndarray, Logits]:
    """-log Σ_y p[y] likelihood[y], and the shares of y in that sum."""
    joint = np.maximum(p * likelihood, 1e-300)
    evidence = joint.sum(axis=1)
    return -np.log(evidence), joint / evidence[:, None]


def _likelihood(seen: Evidence, noise: Matrix) -> Logits:
    """Of each given label under each hidden one; clean labels are what they say."""
    found = np.eye(seen.classes)[seen.given]
    found[: seen.doubtful] = noise[:, seen.given[: seen.doubtful]].T
    return found


def _seen_by_clean_model(seen: Evidence) -> Matrix:
    """T between what a model of the clean examples thinks and what is given; its τ by examples left out."""
    clean = np.arange(len(seen.x)) >= seen.doubtful
    labels, start = np.eye(seen.classes)[seen.given], np.zeros((seen.x.shape[1], seen.classes))
    of = lambda part: regression(  # noqa: E731
        seen.x[part], labels[part], np.ones(part.sum()), start=start, l2=_FIRST
    )
    left_out = np.empty((len(seen.x), seen.classes))
    for k in range(FOLDS):
        left_out[seen.fold == k] = seen.x[seen.fold == k] @ of(clean & (seen.fold != k))
    only = seen._replace(doubtful=0, x=seen.x[clean], given=seen.given[clean])
    tau, _, _ = _noise_of(only, left_out[clean], np.eye(seen.classes))
    thinks = softmax(tau * (seen.x[: seen.doubtful] @ of(clean)), axis=1)
    counts = thinks.T @ labels[: seen.doubtful] + 1.0
    return counts / counts.sum(axis=1, keepdims=True)


def _spread(classes: int, wrong: float) -> Matrix:
    """The T of labels of which ``wrong`` are replaced by any other, all alike."""
    wrong = float(np.clip(wrong, 0.01, 1 - 1 / classes))
    off = wrong / (classes - 1)
    return np.full((classes, classes), off) + np.eye(classes) * (1 - wrong - off)
