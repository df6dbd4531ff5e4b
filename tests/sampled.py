"""Long tables of tests: a sample of the rows runs with every change, all of them in ``make soak``."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(rows: Iterable[Any], *, every: int = 1, never: Collection[Any] = ()) -> list[Any]:
    """The rows as parameters: each ``every``-th is in the sample, those of ``never`` are not.

    Change the order of a table, and the sample changes: none of its rows may be there for the sample's sake.
    """
    return [
        pytest.param(row, marks=() if i % every == 0 and row not in never else pytest.mark.soak)
        for i, row in enumerate(rows)
    ]
