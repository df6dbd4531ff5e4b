"""Errors and warnings go from one process to another: workers of Ray, of Optuna and of pytest send them home."""

import importlib
import pickle
import pkgutil

import pytest

import rfho
from rfho.checks.diagnosis import Finding, Kind, Where
from rfho.testing import ConformanceError

FINDING = Finding(Kind.MOVED_FAR, Where(step=3), "outer step 3 was too long")
MADE = {
    rfho.HyperGradientError: lambda of: of(rfho.Result.FAILED, "at outer step 3 it is NaN"),
    rfho.HyperGradientWarning: lambda of: of(FINDING),
    ConformanceError: lambda of: of("Halved", {"it_is_idempotent": "it is not"}),
}


def all_of_rfho():
    """Every public exception and warning that the library defines, wherever it can be imported from here."""
    found = set()
    for module in pkgutil.walk_packages(rfho.__path__, "rfho."):
        if module.name.startswith(("rfho.adapters", "rfho.tracking", "rfho.datasets")):
            continue  # these import what may not be installed
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Exception):
                found.add(value)
    ours = {each for each in found if each.__module__.startswith("rfho.")}
    return sorted((each for each in ours if each.__name__[0] != "_"), key=lambda one: one.__name__)


@pytest.mark.parametrize("kind", all_of_rfho(), ids=lambda kind: kind.__name__)
def test_it_arrives_as_it_was_sent(kind):
    sent = MADE.get(kind, lambda of: of("what was wrong, and what to do"))(kind)
    arrived = pickle.loads(pickle.dumps(sent))
    assert type(arrived) is kind
    assert str(arrived) == str(sent)
    told = {"result", "finding", "subject", "broken"}
    assert {k: v for k, v in vars(arrived).items() if k in told} == {
        k: v for k, v in vars(sent).items() if k in told
    }


def test_an_error_travels_without_its_solution():
    error = rfho.HyperGradientError(rfho.Result.FAILED, "at outer step 3 it is NaN")
    error.solution = lambda: "what cannot be pickled"
    assert pickle.loads(pickle.dumps(error)).solution is None
