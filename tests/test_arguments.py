"""Numbers that an argument takes are those of Python and of NumPy alike, and come out as Python's own."""

import fractions
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.attribution import influence, weighted
from rfho.errors import positive_int, positive_number


@pytest.mark.parametrize(
    "kind", [int, float, np.int64, np.uint8, np.float32, np.float64, fractions.Fraction]
)
def test_a_positive_number_is_of_any_kind(kind):
    found = positive_number(kind(2), "spread", "this")
    assert type(found) is float
    assert found == 2


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_a_positive_int_is_of_any_kind(kind):
    found = positive_int(kind(2), "size", "this")
    assert type(found) is int
    assert found == 2


@pytest.mark.parametrize(
    "value", [True, np.True_, "2", None, 0, -1, np.float32(0), math.inf, np.inf, math.nan, 2j, [2]]
)
def test_what_is_no_positive_number_is_refused(value):
    with pytest.raises(ValueError, match=r"this got spread=.* must be a positive number"):
        positive_number(value, "spread", "this")


def test_the_largest_number_is_allowed_and_the_next_refused():
    assert positive_number(np.float32(1), "share", "this", at_most=1.0) == 1
    with pytest.raises(ValueError, match="of at most 1"):
        positive_number(np.nextafter(1, 2), "share", "this", at_most=1.0)


def test_a_weight_of_numpy_is_the_same_weight():
    """A search over settings hands on NumPy's numbers."""

    def each(w, hyper, batch):
        return (w - batch) ** 2

    dynamics = rfho.Descent(weighted(each), lambda hyper: optax.sgd(0.1), init=jnp.zeros(()))
    problem = rfho.Problem(dynamics, weighted(each), jnp.arange(3.0), jnp.ones(1), horizon=3)
    found = [
        influence(problem, queries=each, weight=kind(0.5)).mean for kind in (float, np.float32)
    ]
    np.testing.assert_array_equal(*found)
