"""From a table and its folds to a linear model with a penalty for each group, and back to the table's scale."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfho.adapters.penalised_folds import NUMBERS, Examples, Task, on_device, room_for
from rfho.adapters.penalty_search import Found, search

_DENSE_BYTES = 2**30
"""A sparse table is written out where that takes no more than so much: products with zeros are the faster ones."""

_ROWS = 4096
"""Rows of a dense table that are in double precision at a time: a large table is not copied for it."""

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
        x,
        scales,
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
    of_table = coef / scales.size[:, None]
    importance = _importance(x, of_table, group, weights=weights)
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
        table = table.astype(float)
        squares = np.asarray(share @ table.multiply(table)).ravel()
        variance = np.maximum(squares - np.asarray(share @ table).ravel() ** 2, 0)
        # A difference of squares: what rounding leaves of a constant column is no variance.
        varies = variance > 1e-12 * squares
        return Scales(np.zeros(count), np.sqrt(np.where(varies, variance, 1.0)))
    blocks = [(share[rows], table[rows]) for rows in _blocks(len(table))]
    mean = np.sum([part @ values for part, values in blocks], axis=0)
    size = np.sqrt(np.sum([part @ (values - mean) ** 2 for part, values in blocks], axis=0))
    return Scales(mean, np.where(size > 1e-12 * np.maximum(1, np.abs(mean)), size, 1.0))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(first, first + _ROWS) for first in range(0, count, _ROWS))


def _examples(
    x: Any, scales: Scales, y: np.ndarray, *, group: np.ndarray, weights: np.ndarray, folds: Folds
) -> Examples:
    """On the device, with room for tables of similar size, whose rows have no weight and whose columns are zero."""
    count, features = x.shape
    rows, columns = room_for(count), room_for(features)
    if hasattr(x, "indptr") and 4 * rows * columns > _DENSE_BYTES:
        rows, columns, inputs = count, features, on_device(x.multiply(1 / scales.size).tocsr())
    else:
        inputs = jnp.asarray(_standardised(x, scales, (rows, columns)))
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


def _standardised(x: Any, scales: Scales, room: tuple[int, int]) -> np.ndarray:
    """A table with columns of unit variance, and rows and columns of zeros behind its own."""
    found, columns = np.zeros(room, np.float32), x.shape[1]
    for rows in _blocks(x.shape[0]):
        part = x[rows].toarray() if hasattr(x, "toarray") else x[rows]
        found[rows][: len(part), :columns] = (part - scales.mean) / scales.size
    return found


def _importance(x: Any, coef: np.ndarray, group: np.ndarray, *, weights: np.ndarray) -> np.ndarray:
    """The deviation of each group's part of the predictions, as a share of the sum."""
    share = weights / weights.sum()
    moved = np.zeros(int(group.max()) + 1)
    for number in range(len(moved)):
        columns = np.flatnonzero(group == number)
        part = np.asarray(x[:, columns].astype(float) @ coef[columns])
        moved[number] = np.sqrt(np.sum(share @ (part - share @ part) ** 2))
    return moved / moved.sum() if moved.sum() > 0 else moved
