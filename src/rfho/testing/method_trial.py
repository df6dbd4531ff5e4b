"""A method under test, and what it gave on the problems of a family."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rfho import Problem
from rfho.hyper_gradients import AbstractHyperGradient, Estimate
from rfho.testing.family import Family


class MethodTrial(NamedTuple):
    """A method under test, and what it gave on the problems of a family.

    Attributes:
        method: under test.
        family: the problems.
        problem, hyper: the main one, and where it was tried.
        tolerance: of the method's hypergradient, None if it is not exact.
        carries: before the first estimate, after the first and after the second.
        estimates: the first, the second, and the first once more.
        traced: how often `estimate` was traced before the second estimate and after it.
        compiled: `estimate` of the method.
        misuse: what must be refused.
    """

    method: AbstractHyperGradient
    family: Family
    problem: Problem
    hyper: Any
    tolerance: float | None
    carries: tuple[Any, ...]
    estimates: tuple[Estimate, ...]
    traced: tuple[int, int]
    compiled: Any
    misuse: tuple[Callable[[], object], ...]
