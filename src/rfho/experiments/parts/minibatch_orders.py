"""What a training run comes to under orders of minibatches that its hyperparameters were not chosen on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax import Array

import rfho
from rfho.experiments.parts.network import Examples
from rfho.runs.table import Cell, Column, spread

Accuracy = Callable[[Any, Examples], Array]
"""The share of some examples that trained parameters get right."""

CONSTANT_RATES = tuple(np.geomspace(0.003, 1.0, 16).tolist())
"""Among these is the best constant rate, with which a schedule is compared."""


class Outcome(NamedTuple):
    """Once for each order of minibatches.

    Attributes:
        loss: E(w_T).
        accuracy: on the test examples, in percent.
    """

    loss: np.ndarray
    accuracy: np.ndarray


def outcome(
    problem: rfho.Problem,
    hyper: Any,
    accuracy: Accuracy,
    *,
    test: Examples,
    repeats: int,
    seed: int,
) -> Outcome:
    """Trains with ``repeats`` orders of minibatches that ``seed`` decides.

    Args:
        problem: one that trains on a `rfho.Stream`.
        hyper: hyperparameters that fit it.
        accuracy: how the trained parameters are judged.
        test: on which examples.
        repeats: how many orders.
        seed: of the orders; not the one of the stream.
    """
    keys = jax.random.split(jax.random.key(seed), repeats)
    loss, right = _trained(problem, hyper, accuracy, test=test, keys=keys)
    return Outcome(np.asarray(loss), 100 * np.asarray(right))


def outcome_columns(name: str, loss: str) -> list[Column]:
    """The columns of `outcome_row`: what is compared, by which loss, and accuracy."""
    return [Column(name), Column(loss, 4), Column("test accuracy %", 2)]


def outcome_row(name: str, found: Outcome) -> list[Cell]:
    """Mean and standard deviation over the orders."""
    return [name, spread(found.loss), spread(found.accuracy)]


@eqx.filter_jit
def _trained(
    problem: rfho.Problem, hyper: Any, accuracy: Accuracy, *, test: Examples, keys: Array
) -> tuple[Array, Array]:
    method = rfho.hyper_gradients.ReverseHyperGradient()

    def one(key: Array) -> tuple[Array, Array]:
        fresh = eqx.tree_at(lambda p: p.train.key, problem, key)
        value, params = method.conclude(fresh, hyper, None)
        return value, accuracy(params, test)

    return jax.lax.map(one, keys)
