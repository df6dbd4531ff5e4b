"""From a table and its folds to a linear model with a penalty for each group, and back to the table's scale."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfho.adapters.penalised_folds import NUMBERS, Examples, Task, on_device, padded, room_for
from rfho.adapters.penalty_search import Found, search

_DENSE_BYTES = 2**30
"""A sparse table is written out where that takes no more than so much: products with zeros are the faster ones."""

Folds = list[tuple[np.ndarray, np.ndarray]]
"""Positions of training and of validation examples, for each fold."""


class Fitted(NamedTuple):
    """A model on the scale of its table.

    Attributes:
        coef: shape (outputs, features).
        intercept: shape (outputs,).
        importance: of each group, the share of what it moves predictions by.
        found: where the search ended.
    """

    coef: Float[np.ndarray, "outputs features"]
    intercept: Float[np.ndarray, " outputs"]
    importance: Float[np.ndarray, " groups"]
    found: Found


class Scales(NamedTuple):
    """Centre and size of columns."""

    mean: np.ndarray
    size: np.ndarray


def fitted(
    task: Task,
    x: Any,
    y: np.ndarray,
    *,
    group: np.ndarray,
    weights: np.ndarray,
    folds: Folds,
    outputs: int,
    per_output: bool,
    scale: bool,
    spread: float,
    steps: int,
) -> Fitted:
    """The model of all examples, under the penalties that do best on the folds.

    Args:
        task: classes or numbers.
        x: the table, dense or of compressed sparse rows.
        y: class numbers (n,), or targets (n, outputs).
        group: of each column.
        weights: of examples, shape (n,).
        folds: for the objective.
        outputs: how many columns predictions have.
        per_output: whether each output has penalties of its own.
        scale: whether columns are brought to unit variance first.
        spread: τ of the prior.
        steps: outer steps at most.
    """
    scales = _scales(x, weights, scale=scale)
    targets = _scales(y, weights, scale=True) if task is NUMBERS else None
    groups = int(group.max()) + 1
    examples = _examples(
        _standardised(x, scales),
        y if targets is None else (y - targets.mean) / targets.size,
        group=group,
        weights=weights,
        folds=folds,
    )
    found = search(
        task,
        examples,
        outputs=outputs,
        groups=groups,
        per_output=per_output,
        spread=spread,
        steps=steps,
    )
    found = found._replace(penalties=found.penalties[:groups])
    coef = found.coef[: x.shape[1]]
    importance = _importance(_standardised(x, scales), coef, group, weights=weights)
    of_table = coef / scales.size[:, None]
    intercept = found.intercept - scales.mean @ of_table
    if targets is not None:
        of_table, intercept = of_table * targets.size, intercept * targets.size + targets.mean
    return Fitted(of_table.T, intercept, importance, found)


def _scales(table: Any, weights: np.ndarray, *, scale: bool) -> Scales:
    """Weighted mean and deviation of columns; a sparse table is not centred, so that it stays sparse."""
    count = table.shape[1]
    if not scale:
        return Scales(np.zeros(count), np.ones(count))
    share = weights / weights.sum()
    if hasattr(table, "multiply"):
        squares = np.asarray(share @ table.multiply(table)).ravel()
        mean = np.asarray(share @ table).ravel()
        size = np.sqrt(np.maximum(squares - mean**2, 0))
        return Scales(np.zeros(count), np.where(size > 1e-12, size, 1.0))
    mean = share @ table
    size = np.sqrt(share @ (table - mean) ** 2)
    return Scales(mean, np.where(size > 1e-12 * np.maximum(1, np.abs(mean)), size, 1.0))


def _standardised(x: Any, scales: Scales) -> Any:
    if hasattr(x, "multiply"):
        return x.multiply(1 / scales.size).tocsr()
    return (x - scales.mean) / scales.size


def _examples(
    x: Any, y: np.ndarray, *, group: np.ndarray, weights: np.ndarray, folds: Folds
) -> Examples:
    """On the device, with room for tables of similar size, whose rows have no weight and whose columns are zero."""
    count, features = x.shape
    rows, columns = room_for(count), room_for(features)
    if hasattr(x, "indptr") and 4 * rows * columns > _DENSE_BYTES:
        rows, columns, inputs = count, features, on_device(x)
    else:
        inputs = jnp.asarray(padded(x, rows, columns))
    train = np.zeros((rows, len(folds) + 1), np.float32)
    valid = np.zeros_like(train)
    for k, (inside, outside) in enumerate(folds):
        train[inside, k], valid[outside, k] = weights[inside], weights[outside]
    train[:count, -1] = weights
    targets = np.zeros((rows, *y.shape[1:]), np.int32 if y.ndim == 1 else np.float32)
    targets[:count] = y
    index = np.zeros(columns, np.int32)
    index[:features] = group
    arrays = (jnp.asarray(part) for part in (targets, index, train, valid))
    return Examples(inputs, *arrays, prior=jnp.zeros(2))


def _importance(x: Any, coef: np.ndarray, group: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """The deviation of each group's part of the predictions, as a share of the sum."""
    share = weights / weights.sum()
    moved = np.zeros(int(group.max()) + 1)
    for number in range(len(moved)):
        columns = np.flatnonzero(group == number)
        part = np.asarray(x[:, columns] @ coef[columns])
        moved[number] = np.sqrt(np.sum(share @ (part - share @ part) ** 2))
    return moved / moved.sum() if moved.sum() > 0 else moved
