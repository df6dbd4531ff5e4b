"""The guard against penalties that fit the folds: what examples left out are sure of, and what is believed of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfho.adapters.penalised_folds import (
    NUMBERS,
    TWO_CLASSES,
    Examples,
    Gain,
    Place,
    gain_of,
    problem_of,
)
from rfho.adapters.penalty_search import _believed


def folds(y):
    """Six examples of one feature, of which two folds leave out two each; one example has no weight."""
    x = jnp.asarray([[1.0], [2.0], [3.0], [-1.0], [-2.0], [5.0]])
    valid = np.zeros((6, 3), np.float32)
    valid[[0, 1], 0] = 1
    valid[[2, 3], 1] = 2
    train = np.ones((6, 3), np.float32)
    return Examples(x, jnp.asarray(y), jnp.zeros(1, jnp.int32), train, valid, jnp.zeros(2))


def place(slope):
    params = {"W": jnp.full((3, 1, 1), slope), "b": jnp.zeros((3, 1))}
    return Place(0.0, np.ones((1, 1), np.float32), params)


def test_the_error_of_a_gain_is_that_of_paired_differences():
    data = folds([1, 0, 1, 0, 0, 1])
    found = gain_of(TWO_CLASSES, place(0.0), place(0.5), data)
    x, sign = np.array([1.0, 2, 3, -1]), np.array([1, -1, 1, -1])
    differences = np.log(2) - np.logaddexp(0, -sign * 0.5 * x)
    weights = np.array([1, 1, 2, 2])
    mean = np.average(differences, weights=weights)
    assert found.nats == pytest.approx(6 * mean, rel=1e-5)
    expected = np.sqrt(np.sum(weights * (differences - mean) ** 2))
    assert found.error == pytest.approx(expected, rel=1e-5)


def test_numbers_gain_in_the_logarithm_of_their_error():
    data = folds([[1.0], [1.0], [3.0], [-1.0], [0.0], [0.0]])
    found = gain_of(NUMBERS, place(0.0), place(0.8), data)
    y, weights = np.array([1.0, 1, 3, -1]), np.array([1, 1, 2, 2])
    losses = [0.5 * (y - slope * np.array([1.0, 2, 3, -1])) ** 2 for slope in (0.0, 0.8)]
    means = [np.average(part, weights=weights) for part in losses]
    assert found.nats == pytest.approx(3 * np.log(means[0] / means[1]), rel=1e-5)
    differences = 0.5 * (losses[0] / means[0] - losses[1] / means[1])
    assert found.error == pytest.approx(np.sqrt(np.sum(weights * differences**2)), rel=1e-5)


def test_examples_of_repeated_folds_count_once():
    data = folds([1, 0, 1, 0, 0, 1])
    twice = data._replace(valid=2 * data.valid)
    once, again = (gain_of(TWO_CLASSES, place(0.0), place(0.5), part) for part in (data, twice))
    assert again.nats == pytest.approx(once.nats, rel=1e-5)
    assert again.error == pytest.approx(once.error, rel=1e-5)


def test_the_table_is_read_row_by_row_by_every_product():
    rows, columns, models = 20, 7, 3
    w = {"W": jnp.ones((models, 1, columns)), "b": jnp.zeros((models, 1))}
    weights = jnp.ones((rows, models))
    x, y = jnp.ones((rows, columns)), jnp.zeros(rows, jnp.int32)
    data = Examples(x, y, jnp.zeros(columns, jnp.int32), weights, weights, jnp.zeros(2))
    problem = problem_of(TWO_CLASSES, w, data)
    hyper = {"penalties": jnp.ones((1, 1))}

    def product(v):
        return jax.jvp(jax.grad(lambda w: problem.dynamics.loss(w, hyper, data)), (w,), (v,))[1]

    program = jax.jit(product).lower(w).compile().as_text() or ""
    dots = set(re.findall(r"= f\d+\[([\d,]+)\]\S* dot\(", program))
    # Rᵀ x, and never xᵀ R, which takes ten times as long.
    assert dots == {f"{rows},{models}", f"{models},{columns}"}


@pytest.mark.parametrize(
    ("nats", "error", "kept"),
    [(20.0, 0.0, 0.9), (20.0, 15.0, 0.6), (20.0, 18.0, 0.0), (2.0, 5.0, 0.0), (np.nan, 1.0, 0.0)],
)
def test_penalties_go_back_to_one_as_their_gain_is_in_doubt(nats, error, kept):
    best = place(0.0)._replace(penalties=np.exp(np.array([[3.0], [-1.0], [1.0]])))
    found = _believed(Gain(nats, error), best, shared=1.0, groups=6)
    assert np.log(found)[:, 0] == pytest.approx(1 + kept * np.array([2, -2, 0]))
