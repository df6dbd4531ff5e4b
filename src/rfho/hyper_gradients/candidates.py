"""The methods among which `AutoHyperGradient` chooses, each set up for the problem and the limit."""

import enum
import math
from typing import NamedTuple

from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.dynamics import Keep
from rfho.files import as_bytes
from rfho.hyper_gradients.base import AbstractHyperGradient
from rfho.hyper_gradients.forward import ForwardHyperGradient
from rfho.hyper_gradients.implicit import ImplicitHyperGradient
from rfho.hyper_gradients.random_forward import RandomForwardHyperGradient
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.memory import Binomial, Recompute, Replay, StoreAll

_DIRECTIONS = 8
"""Directions of the random method."""


class Exactness(enum.Enum):
    """What an estimate is: the hypergradient, that on average, or that if training has converged."""

    EXACT = "exact"
    ON_AVERAGE = "on average"
    AT_THE_END = "at the end"


class Candidate(NamedTuple):
    """One method on one problem.

    Attributes:
        method: ready to be used.
        exactness: what its estimate is.
        forecast: time in plain training runs, memory in bytes; None where it does not apply.
        reason: why it was chosen, or was not.
    """

    method: AbstractHyperGradient
    exactness: Exactness
    forecast: Forecast | None
    reason: str

    @property
    def time(self) -> float:
        """In plain training runs; infinite where the method does not apply."""
        return math.inf if self.forecast is None else float(self.forecast.time)

    @property
    def memory(self) -> float:
        """In bytes; infinite where the method does not apply."""
        return math.inf if self.forecast is None else float(self.forecast.memory)

    def __str__(self) -> str:
        figures = f"{'-':>7}  {'-':>9}"
        if self.forecast is not None:
            figures = f"{self.forecast.time:5.1f} ×  {as_bytes(self.forecast.memory):>9}"
        return f"{tree.as_code(self.method):56} {figures}  {self.exactness.value:10} {self.reason}"


def candidates(parts: Parts, *, limit: int) -> list[Candidate]:
    """All candidates with their forecasts: the exact ones, fastest first, then the others."""
    m = parts.m
    chunk = _chunk(parts, limit)
    exact = [*_reverse(parts, limit), ForwardHyperGradient()]
    exact += [ForwardHyperGradient(chunk)] if chunk < m else []
    found = [Candidate(method, Exactness.EXACT, method.cost(parts), "") for method in exact]
    found.sort(key=lambda candidate: candidate.time)
    if m > _DIRECTIONS:
        random = RandomForwardHyperGradient(_DIRECTIONS, key=0, chunk=min(chunk, _DIRECTIONS))
        noise = f"noise of {math.sqrt(m / _DIRECTIONS - 1):.1f} times the hypergradient"
        found.append(Candidate(random, Exactness.ON_AVERAGE, random.cost(parts), noise))
    return [*found, _implicit(parts)]


def frugal_candidates(parts: Parts, *, limit: int) -> list[Candidate]:
    """Three exact ones that take little memory, for a refusal that is not to take long."""
    chunk = None if parts.m == 1 else 1
    policies = (Recompute(), Binomial(_slots(parts, limit)))
    methods = [*map(ReverseHyperGradient, policies), ForwardHyperGradient(chunk)]
    return [Candidate(method, Exactness.EXACT, method.cost(parts), "") for method in methods]


def _reverse(parts: Parts, limit: int) -> list[ReverseHyperGradient]:
    """Reverse mode under every policy that these dynamics have."""
    horizon = parts.problem.horizon
    half = Recompute(-(-horizon // 2))
    policies = [StoreAll(Keep.STATES), StoreAll(Keep.RESIDUALS), Recompute(), half]
    if parts.problem.dynamics.way(Keep.GRADIENTS).again is not None:
        policies += [StoreAll(Keep.GRADIENTS), Replay()]
    return [ReverseHyperGradient(policy) for policy in (*policies, Binomial(_slots(parts, limit)))]


def _slots(parts: Parts, limit: int) -> int:
    """As many slots as fit; from 2 √T on Recompute is as frugal, and faster."""
    horizon = parts.problem.horizon
    room = limit - ReverseHyperGradient(Binomial(1)).cost(parts).memory
    fitting = 1 + room // max(1, tree.nbytes(parts.state))
    return max(1, min(horizon, 2 * math.isqrt(horizon), fitting))


def _chunk(parts: Parts, limit: int) -> int:
    """The most directions at a time that fit, at least 1: memory is linear in their number."""
    m = parts.m
    all_of_them = ForwardHyperGradient(m).cost(parts).memory
    if all_of_them <= limit:
        return m
    one = ForwardHyperGradient(1).cost(parts).memory
    slope = (all_of_them - one) / max(1, m - 1)
    fitting = 1 + (limit - one) / slope if slope > 0 else m
    return max(1, min(m, math.floor(fitting)))


def _implicit(parts: Parts) -> Candidate:
    method = ImplicitHyperGradient()
    try:
        method.condition.check(parts.problem, parts.hyper)
    except (TypeError, ValueError) as error:
        return Candidate(method, Exactness.AT_THE_END, None, str(error).partition(": ")[0])
    reason = "right only where training has converged, which is not known before"
    return Candidate(method, Exactness.AT_THE_END, method.cost(parts), reason)
