"""The method that picks a method: the fastest exact one whose memory fits."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax

from rfho import tree
from rfho.checkpoint import Binomial, Recompute, Replay, StoreAll
from rfho.dynamics import Keep
from rfho.forecast import Forecast, forecaster, label_of
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate
from rfho.hyper_gradients.forward import ForwardHyperGradient
from rfho.hyper_gradients.implicit import ImplicitHyperGradient
from rfho.hyper_gradients.random_forward import RandomForwardHyperGradient
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.problem import Problem
from rfho.room import memory_of_device
from rfho.typing import Hyper, Params, PyTree
from rfho.work import Rates

_DIRECTIONS = 8
"""Directions of the random method, where nothing exact fits."""


class Candidate(NamedTuple):
    """One method on one problem.

    Attributes:
        method: ready to be used.
        exactness: what its estimate is, in words.
        forecast: time in plain training runs, memory in bytes; None where it does not apply.
        reason: why it was chosen, or was not.
    """

    method: AbstractHyperGradient
    exactness: str
    forecast: Forecast | None
    reason: str

    def __str__(self) -> str:
        figures = f"{'-':>7}  {'-':>9}"
        if self.forecast is not None:
            figures = f"{self.forecast.time:5.1f} ×  {_bytes(self.forecast.memory):>9}"
        return f"{label_of(self.method):56} {figures}  {self.exactness:10} {self.reason}"


class Selection(NamedTuple):
    """What was chosen, and from what; prints as a table.

    Attributes:
        method: the chosen one.
        candidates: all that were weighed, the chosen one included.
        memory_limit: bytes.
    """

    method: AbstractHyperGradient
    candidates: tuple[Candidate, ...]
    memory_limit: int

    def __str__(self) -> str:
        title = f"{'within ' + _bytes(self.memory_limit):56} {'time':>7}  {'memory':>9}"
        mark = lambda c: "→ " if c.method is self.method else "  "  # noqa: E731
        return "\n".join(["  " + title, *(mark(c) + str(c) for c in self.candidates)])


class AutoHyperGradient(AbstractHyperGradient):
    """The fastest exact method whose memory fits, chosen from forecasts before anything runs.

    `select` says which it is, and what every other would cost. The choice is made when a program is
    traced, from shapes alone, and is part of that program. If no exact method fits, it is
    `RandomForwardHyperGradient`, which is right on average. `ImplicitHyperGradient` is weighed and never
    chosen: it is right only where training has converged, which nobody knows before.

    Args:
        memory_limit: bytes that one estimate may take beside the problem's own arrays; by default
            half of the memory of the device. Under `jax.vmap` (`rfho.tune_many`) the limit is for
            each member.
        rates: how fast the machine is at arithmetic and at moving memory, see `rfho.Rates`.

    Cost:
        Of the method that it chooses, and some tenths of a second of tracing for each program that
        is built. Forecasts of memory are right within 25 %, on compiled programs of 20 shapes, see
        the explanation "Choosing a method".

    Aux:
        That of the method it chooses.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: jnp.sum((w - 1) ** 2),
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(1000),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: jnp.sum(w), train=None, valid=None, horizon=500
        ... )
        >>> method = rfho.AutoHyperGradient(memory_limit=1e5)
        >>> type(method.select(problem, {"lr": jnp.asarray(0.1)}).method).__name__
        'ForwardHyperGradient'
    """

    memory_limit: int = eqx.field(static=True)
    rates: Rates = eqx.field(static=True)

    def __init__(self, memory_limit: float | None = None, rates: Rates | None = None) -> None:
        self.memory_limit = (
            memory_of_device() // 2 if memory_limit is None else _limit(memory_limit)
        )
        self.rates = Rates() if rates is None else rates

    def select(self, problem: Problem, hyper: Hyper) -> Selection:
        """The method for this problem, with all candidates and their forecasts.

        Nothing is run and nothing compiled; the arrays of ``problem`` and ``hyper`` may be traced.

        Raises:
            MemoryError: no method fits; the message lists what the most frugal ones need.
        """
        hyper = tree.as_hyper(hyper)
        weighed = _weighed(problem, hyper, self)
        fitting = [c for c in weighed if c.forecast and c.forecast.memory <= self.memory_limit]
        eligible = [c for c in fitting if c.exactness in (_EXACT, _ON_AVERAGE)]
        if not eligible:
            raise MemoryError(
                f"no method fits into {_bytes(self.memory_limit)}: raise memory_limit, or shorten the problem. "
                f"The most frugal are\n{_listed(weighed)}"
            )
        best = min(eligible, key=lambda c: (c.exactness != _EXACT, c.forecast.time))
        candidates = tuple(_reasoned(c, best, self.memory_limit) for c in weighed)
        return Selection(best.method, candidates, self.memory_limit)

    def check(self, problem: Problem, hyper: Hyper, method: AbstractHyperGradient) -> Forecast:
        """The forecast of ``method``, once it is known to fit.

        Raises:
            MemoryError: it does not fit; the message lists the methods that do, with their figures.
            TypeError: there is no forecast for such a method.
        """
        hyper = tree.as_hyper(hyper)
        forecast = forecaster(problem, hyper)(method, self.rates)
        if forecast.memory <= self.memory_limit:
            return forecast
        weighed = _weighed(problem, hyper, self)
        fitting = [c for c in weighed if c.forecast and c.forecast.memory <= self.memory_limit]
        instead = f"What fits is\n{_listed(fitting)}" if fitting else "Nothing else fits either."
        raise MemoryError(
            f"{label_of(method)} needs {_bytes(forecast.memory)} on this problem, but the limit is "
            f"{_bytes(self.memory_limit)}. {instead}"
        )

    def init(self, problem: Problem, hyper: Hyper) -> Any:
        """The carry of the method that `select` chooses."""
        return self.select(problem, hyper).method.init(problem, hyper)

    def reserve(self, problem: Problem, hyper: Hyper) -> PyTree:
        """The memory of the method that `select` chooses."""
        return self.select(problem, hyper).method.reserve(problem, hyper)

    def estimate(self, problem: Problem, hyper: Hyper, carry: Any) -> tuple[Estimate, Any]:
        """One estimate of the method that `select` chooses."""
        return self.select(problem, hyper).method.estimate(problem, hyper, carry)

    def conclude(self, problem: Problem, hyper: Hyper, carry: Any) -> tuple[PyTree, Params]:
        """The conclusion of the method that `select` chooses."""
        return self.select(problem, hyper).method.conclude(problem, hyper, carry)

    def limit(self, problem: Problem) -> None:
        """Any number of estimates: only batch methods are chosen."""


_EXACT, _ON_AVERAGE, _CONVERGED = "exact", "on average", "at the end"


def _weighed(problem: Problem, hyper: Hyper, auto: AutoHyperGradient) -> list[Candidate]:
    """All candidates with their forecasts, fastest first within each exactness."""
    known = forecaster(problem, hyper)
    forecast = lambda method: known(method, auto.rates)  # noqa: E731
    m, limit = tree.size(hyper), auto.memory_limit
    forward = [ForwardHyperGradient()]
    chunk = _chunk([forecast(f).memory for f in (ForwardHyperGradient(1), *forward)], m, limit)
    forward += [ForwardHyperGradient(chunk)] if chunk < m else []
    exact = [*_reverse(problem, hyper, forecast, limit=limit), *forward]
    found = [Candidate(method, _EXACT, forecast(method), "") for method in exact]
    if m > _DIRECTIONS:
        random = RandomForwardHyperGradient(_DIRECTIONS, key=0, chunk=min(chunk, _DIRECTIONS))
        noise = f"noise of {math.sqrt(m / _DIRECTIONS - 1):.1f} times the hypergradient"
        found.append(Candidate(random, _ON_AVERAGE, forecast(random), noise))
    found.sort(key=lambda c: (c.exactness != _EXACT, c.forecast.time))
    implicit, refusal = ImplicitHyperGradient(), _refusal(problem, hyper)
    applies = None if refusal else forecast(implicit)
    why = refusal or "right only where training has converged, which is not known before"
    return [*found, Candidate(implicit, _CONVERGED, applies, why)]


def _reverse(
    problem: Problem,
    hyper: Hyper,
    forecast: Callable[[AbstractHyperGradient], Forecast],
    *,
    limit: int,
) -> list[ReverseHyperGradient]:
    """Reverse mode under every policy that these dynamics have."""
    T = problem.horizon
    way = problem.dynamics.way(Keep.GRADIENTS)
    policies = [StoreAll(Keep.STATES), StoreAll(Keep.RESIDUALS), Recompute(), Recompute(-(-T // 2))]
    if way.again is not None:
        policies += [StoreAll(Keep.GRADIENTS), Replay()]
    # As many slots as fit; from 2 √T on Recompute is as frugal, and faster.
    state = tree.nbytes(jax.eval_shape(lambda: problem.init(hyper)))
    room = limit - forecast(ReverseHyperGradient(Binomial(1))).memory
    slots = max(1, min(T, 2 * math.isqrt(T), 1 + room // max(1, state)))
    return [ReverseHyperGradient(policy) for policy in (*policies, Binomial(slots))]


def _chunk(memory: list[int], m: int, limit: int) -> int:
    """The most directions at a time that fit, 1 if none: memory is linear in their number."""
    one, all_of_them = memory
    slope = (all_of_them - one) / max(1, m - 1)
    fitting = 1 + (limit - one) / slope if slope > 0 else m
    return max(1, min(m, math.floor(fitting)))


def _refusal(problem: Problem, hyper: Hyper) -> str | None:
    """Why implicit differentiation does not apply, or None."""
    try:
        ImplicitHyperGradient().condition.check(problem, hyper)
    except (TypeError, ValueError) as error:
        return str(error).partition(": ")[0]
    return None


def _reasoned(candidate: Candidate, best: Candidate, limit: int) -> Candidate:
    forecast, chosen = candidate.forecast, best.forecast
    if forecast is None or chosen is None:
        return candidate
    reasons = [candidate.reason] if candidate.reason else []
    if candidate is best:
        reasons = [f"the fastest {candidate.exactness} that fits", *reasons]
    elif forecast.memory > limit:
        reasons = ["does not fit", *reasons]
    elif candidate.exactness == best.exactness:
        reasons = [f"{forecast.time / chosen.time:.2f} times the time of the chosen", *reasons]
    return candidate._replace(reason="; ".join(reasons))


def _listed(candidates: list[Candidate]) -> str:
    """The five that need the least memory."""
    known = [c for c in candidates if c.forecast is not None]
    known.sort(key=lambda c: c.forecast.memory if c.forecast else 0)
    return "\n".join("  " + str(candidate).rstrip() for candidate in known[:5])


def _limit(memory_limit: float) -> int:
    number = isinstance(memory_limit, int | float) and not isinstance(memory_limit, bool)
    if not number or not 0 < memory_limit < math.inf:
        raise ValueError(
            f"AutoHyperGradient got memory_limit={memory_limit!r}, but it must be a positive number of bytes: "
            "write 2e9 for 2 GB"
        )
    return int(memory_limit)


def _bytes(count: int) -> str:
    """As one reads it: 1.2 MB."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
