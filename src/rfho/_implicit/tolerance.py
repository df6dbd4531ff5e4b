"""Tolerances that may follow the outer step, and what the implicit method is made of."""

from collections.abc import Callable
from typing import Any

from rfho.typing import Scalar, Step

Tolerance = float | Callable[[Step], Scalar | float]
"""A number, or a function of the outer step k = 0, 1, …"""


def at_step(tolerance: Tolerance, k: Step) -> Scalar | float:
    """The tolerance of outer step k."""
    return tolerance(k) if callable(tolerance) else tolerance


def check_kind(value: Any, kind: type, name: str, example: str) -> None:
    """Refuses a part of the method that is not of its kind.

    Raises:
        TypeError: the message says what to give.
    """
    if not isinstance(value, kind):
        raise TypeError(f"ImplicitHyperGradient got {name}={value!r}, but it must be {example}")


def check_tolerance(value: Any, name: str) -> None:
    """Refuses a tolerance that is neither a number of 0 or more nor a function.

    Raises:
        ValueError: it is neither.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not callable(value) and not (number and 0 <= value < float("inf")):
        raise ValueError(
            f"ImplicitHyperGradient got {name}={value!r}, but it must be a number of 0 or more"
        )
