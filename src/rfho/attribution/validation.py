r"""Whether influence predicts what leaving examples out does: models are trained without random subsets.

The linear datamodelling score is the rank correlation between prediction and truth over the subsets,
averaged over queries. Truth that was trained in random orders is noisy itself, so that no prediction reaches 1:
two independent halves of the trainings correlate by r, and by Spearman and Brown's formula

.. math:: \text{ceiling} = \sqrt{2 r / (1 + r)}.

A prediction has one number for each example, and leaving out a half and the other half moves their sum by opposite
amounts. What both halves do alike it cannot tell: if p is the part of the variance of the truth's ranks that is of
opposite sign in such pairs, no score passes √p, and without its noise none is expected to pass

.. math:: \text{linear ceiling} = \sqrt{p - (1 - \text{ceiling}^2) / 2}.

A derivative draws a straight line, and training that is not smooth has none. The way from all examples to those
that are kept is walked in two halves, by weights of ½ and 0 for the others, and what the halves do to an answer is
compared over the subsets s, as metasmoothness compares two steps (arXiv 2503.13751):

.. math:: \text{smoothness} = \frac{\sum_s \Delta^1_s \operatorname{sign} \Delta^2_s}{\sum_s |\Delta^1_s|},

both without their means over the subsets, which do not count for the score either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from rfho._programs import trees as tree
from rfho.attribution.sweep import Asked, answered
from rfho.errors import positive_int

_WAYS = 10
"""Subsets whose way is walked."""


class Validation(NamedTuple):
    """Predictions beside what came of them.

    Attributes:
        score: the linear datamodelling score, the mean of ``by_query``.
        by_query: Spearman's rank correlation over the subsets; shape (q,).
        ceiling: the score that a perfect prediction would have, as the truth is noisy; NaN where it cannot
            be told, 1 where the truth is not.
        linear_ceiling: the score that the best number for each example would have; NaN where halves were not left
            out in pairs.
        slope: of the line that fits truth to prediction best: 1 if sizes are right as well as order; shape
            (q,).
        smoothness: whether the second half of the way to weights of 0, in one order, does to an answer what the
            first half did, from -1 to 1; the mean over the queries. It is -1/√2 where both ends are chance, and
            where it is low no derivative predicts well.
        predicted: how each query was expected to change; shape (subsets, q).
        answers: what models trained without the subset answer, the mean over trainings; shape (subsets, q).
        left_out: which examples; shape (subsets, n).
    """

    score: float
    by_query: Float[np.ndarray, " q"]
    ceiling: float
    linear_ceiling: float
    slope: Float[np.ndarray, " q"]
    smoothness: float
    predicted: Float[np.ndarray, "subsets q"]
    answers: Float[np.ndarray, "subsets q"]
    left_out: Bool[np.ndarray, "subsets n"]

    def __str__(self) -> str:
        subsets, examples = self.left_out.shape
        out = int(self.left_out[0].sum())
        ceilings = {"ceiling": self.ceiling, "linear ceiling": self.linear_ceiling}
        told = ", ".join(f"{n} {c:.2f}" for n, c in ceilings.items() if not np.isnan(c))
        ceiling = f" ({told})" if told else ""
        return (
            f"linear datamodelling score {self.score:.2f}{ceiling}, {subsets} subsets of {out} of {examples} "
            f"examples left out; truth = {np.median(self.slope):.2f} × prediction in the median; smoothness "
            f"{self.smoothness:.2f} (from -1 to 1)"
        )


def validated(
    asked: Asked,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    subsets: int,
    fraction: float,
    retrain: int,
    antithetic: bool,
    key: Any,
) -> Validation:
    """Predictions of ``predict(masks)`` beside models trained without the subsets."""
    number = asked.examples.number
    out = _checked(number, subsets=subsets, fraction=fraction, retrain=retrain)
    if antithetic and (fraction != 0.5 or subsets % 2):
        raise ValueError(
            f"validate got antithetic=True, subsets={subsets}, fraction={fraction!r}, but only halves have another "
            "half, and both are left out: give fraction=0.5 and an even number of subsets"
        )
    for_subsets, for_orders = jax.random.split(tree.as_key(key, "validate"))
    orders = jax.vmap(lambda k: jax.random.permutation(k, number))(
        jax.random.split(for_subsets, subsets // 2 if antithetic else subsets)
    )
    if antithetic:
        orders = jnp.stack([orders, orders[:, ::-1]], axis=1).reshape(-1, number)
    masks = np.zeros((subsets, number), bool)
    np.put_along_axis(masks, np.asarray(orders[:, :out]), True, axis=1)
    few = masks[:_WAYS]
    ways = few if retrain else masks
    walked = _in_the_same_order(asked, jnp.asarray(1.0 - np.concatenate([ways, few / 2])))
    gone, halfway = np.split(np.asarray(walked), [len(ways)])
    if retrain:
        keys = jax.random.split(for_orders, (subsets, retrain))
        horizon = asked.examples.steps(number - out, asked.horizon)
        trained = np.asarray(_in_other_orders(asked, orders[:, out:], keys, horizon))
    else:
        trained = gone[None]
    smoothness = smoothness_of(halfway, gone[: len(few)])
    return _compared(
        trained, np.asarray(predict(masks)), masks, smoothness=smoothness, antithetic=antithetic
    )


@eqx.filter_jit
def _in_the_same_order(
    asked: Asked, weights: Float[Array, "subsets n"]
) -> Float[Array, "subsets q"]:
    return jax.lax.map(lambda one: answered(asked, one), weights)


@eqx.filter_jit
def _in_other_orders(
    asked: Asked, kept: Int[Array, "subsets kept"], keys: Array, horizon: int
) -> Float[Array, "runs subsets q"]:
    weights = jnp.ones(asked.examples.number)

    def one(chosen: Int[Array, " kept"], key: Array) -> Float[Array, " q"]:
        return answered(asked.on(asked.examples.anew(chosen, key), horizon), weights)

    def subset(given: tuple[Array, Array]) -> Float[Array, "runs q"]:
        chosen, keys = given
        return jax.lax.map(lambda key: one(chosen, key), keys)

    return jnp.swapaxes(jax.lax.map(subset, (kept, keys)), 0, 1)


def _checked(number: int, *, subsets: int, fraction: float, retrain: int) -> int:
    """How many examples are left out.

    Raises:
        ValueError: an argument is out of range.
    """
    if positive_int(subsets, "subsets", "validate") < 3:
        raise ValueError(
            f"validate got subsets={subsets}, but there is no correlation over fewer than 3"
        )
    if retrain:
        positive_int(retrain, "retrain", "validate")
    return number_left_out(number, fraction, "validate")


def number_left_out(number: int, fraction: float, of: str) -> int:
    """``fraction`` of so many examples, at least one of which is left out and one of which is kept.

    Raises:
        ValueError: it is no fraction.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f"{of} got fraction={fraction!r}, but the part of the examples that is left out must lie between 0 and 1"
        )
    return min(max(1, round(fraction * number)), number - 1)


def _compared(
    trained: Float[np.ndarray, "runs subsets q"],
    predicted: Float[np.ndarray, "subsets q"],
    masks: Bool[np.ndarray, "subsets n"],
    *,
    smoothness: float,
    antithetic: bool,
) -> Validation:
    """Correlations over the subsets; what all subsets have in common does not count for them."""
    answers = trained.mean(axis=0)
    by_query = correlations(predicted, answers)
    centred, moved = answers - answers.mean(axis=0), predicted - predicted.mean(axis=0)
    size = np.sum(moved**2, axis=0)
    slope = np.sum(centred * moved, axis=0) / np.where(size > 0, size, np.nan)
    ceiling = _ceiling(trained)
    return Validation(
        float(np.mean(by_query)),
        by_query,
        ceiling,
        _linear_ceiling(answers, ceiling) if antithetic else float("nan"),
        slope,
        smoothness,
        predicted,
        answers,
        masks,
    )


def smoothness_of(
    halfway: Float[np.ndarray, "subsets q"], gone: Float[np.ndarray, "subsets q"]
) -> float:
    """Of the answers at the middle and at the end of the way; 1 where both halves agree, or nothing moves."""
    first, whole = (side - side.mean(axis=0) for side in (halfway, gone))
    size = np.sum(np.abs(first), axis=0)
    agreed = np.sum(first * np.sign(whole - first), axis=0)
    return float(np.mean(np.where(size > 0, agreed / np.where(size > 0, size, 1), 1.0)))


def _ceiling(trained: Float[np.ndarray, "runs subsets q"]) -> float:
    runs = trained.shape[0]
    if runs == 1:
        return float("nan")
    halves = trained[0::2].mean(axis=0), trained[1::2].mean(axis=0)
    alike = max(0.0, float(np.mean(correlations(*halves))))
    return float(np.sqrt(2 * alike / (1 + alike)))


def _linear_ceiling(answers: Float[np.ndarray, "subsets q"], ceiling: float) -> float:
    """Of answers to one half and the other, one after another; truth in one order is taken as free of noise."""
    from scipy.stats import rankdata

    ranks = rankdata(answers, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    size = np.sum(ranks**2, axis=0)
    odd = np.sum((ranks[0::2] - ranks[1::2]) ** 2, axis=0) / 2 / np.where(size > 0, size, np.inf)
    noise = 0.0 if np.isnan(ceiling) else 1 - ceiling**2
    return float(np.mean(np.sqrt(np.maximum(odd - noise / 2, 0.0))))


def correlations(
    left: Float[np.ndarray, "subsets q"], right: Float[np.ndarray, "subsets q"]
) -> Float[np.ndarray, " q"]:
    """Spearman's rank correlation of each column; 0 where one of them does not vary."""
    from scipy.stats import rankdata

    a, b = (rankdata(side, axis=0) for side in (left, right))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    sizes = np.sqrt(np.sum(a**2, axis=0) * np.sum(b**2, axis=0))
    return np.sum(a * b, axis=0) / np.where(sizes > 0, sizes, np.inf)
