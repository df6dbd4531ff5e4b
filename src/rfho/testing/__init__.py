"""Conformance checks: the promises of methods, domains and dynamics, for your own as for the library's.

Each kit is one function. It tries every promise, in double precision, and raises one
`ConformanceError` with all that are broken. It needs no test framework; under pytest

    def test_my_method_keeps_its_promises():
        rfho.testing.check_method(MyMethod())
"""

from rfho.testing.base import BrokenPromise, ConformanceError
from rfho.testing.domains import DOMAIN_PROMISES, check_domain
from rfho.testing.dynamics import check_dynamics
from rfho.testing.dynamics_promises import DYNAMICS_PROMISES
from rfho.testing.family import gradient_descent
from rfho.testing.method_promises import METHOD_PROMISES
from rfho.testing.methods import check_method

__all__ = [
    "DOMAIN_PROMISES",
    "DYNAMICS_PROMISES",
    "METHOD_PROMISES",
    "BrokenPromise",
    "ConformanceError",
    "check_domain",
    "check_dynamics",
    "check_method",
    "gradient_descent",
]
