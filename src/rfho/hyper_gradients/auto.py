"""The method that picks a method: the fastest exact one whose memory fits."""

import math
from typing import Any, NamedTuple

import equinox as eqx

from rfho._programs import trees as tree
from rfho._programs.roofline import Rates
from rfho.choice.forecast import Forecast, Parts
from rfho.files import as_bytes
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate
from rfho.hyper_gradients.candidates import (
    Candidate,
    Exactness,
    candidates,
    frugal_candidates,
)
from rfho.memory.device import memory_of_device
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree

_ALIKE = 1.05
"""Times that differ by less than this factor are taken for equal."""


class Selection(NamedTuple):
    """What was chosen, and from what; prints as a table.

    Attributes:
        candidates: all that were weighed.
        chosen: the number of the chosen one.
        memory_limit: bytes.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    memory_limit: int

    @property
    def method(self) -> AbstractHyperGradient:
        """The chosen one."""
        return self.candidates[self.chosen].method

    def __str__(self) -> str:
        title = f"{'within ' + as_bytes(self.memory_limit):56} {'time':>7}  {'memory':>9}"
        marks = ("→ " if i == self.chosen else "  " for i in range(len(self.candidates)))
        rows = (mark + str(c) for mark, c in zip(marks, self.candidates, strict=True))
        return "\n".join(["  " + title, *rows])


class AutoHyperGradient(AbstractHyperGradient):
    """The fastest exact method whose memory fits, chosen from forecasts before anything runs.

    `select` says which it is, and what every other would cost. The choice is made when a program is
    traced, from shapes alone, and is part of that program. If no exact method fits, it is
    `RandomForwardHyperGradient`, which is right on average. `ImplicitHyperGradient` is weighed and
    never chosen: it is right only where training has converged, which nobody knows before.

    Args:
        memory_limit: bytes that one estimate may take beside the problem's own arrays; by default
            half of the memory of the device. Under `jax.vmap` (`rfho.tune_many`) the limit is for
            each member.
        rates: how fast the machine is at arithmetic and at moving memory, see `rfho.choice.Rates`.

    Cost:
        Of the method that it chooses, and a few seconds once for each problem, in which parts of it are
        traced and the compiler is asked for the memory of candidates. How good the forecasts are is
        measured in the explanation "Choosing a method".

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

    def __init__(self, memory_limit: int | float | None = None, rates: Rates | None = None) -> None:
        limit = memory_of_device() // 2 if memory_limit is None else _checked(memory_limit)
        self.memory_limit = limit
        self.rates = Rates() if rates is None else rates

    def select(self, problem: AbstractMoment, hyper: Hyper) -> Selection:
        """The method for this problem, with all candidates and their forecasts.

        Nothing is run; the arrays of ``problem`` and ``hyper`` may be traced. What was found for a problem of
        the same shapes is remembered.

        Raises:
            MemoryError: no method fits; the message lists what the most frugal ones need.
        """
        return _selected(problem, tree.as_hyper(hyper), self.memory_limit, self.rates)

    def check(
        self, problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient
    ) -> Forecast:
        """The forecast of ``method``, once it is known to fit.

        Raises:
            MemoryError: it does not fit; the message lists the methods that do, with their figures.
            TypeError: there is no forecast for such a method.
        """
        parts = self._parts(problem, hyper)
        forecast = method.cost(parts)
        if forecast is None:
            raise TypeError(
                f"there is no forecast for {tree.as_code(method)}: {method.cost_unknown}"
            )
        if forecast.memory > self.memory_limit:
            raise MemoryError(too_large(parts, method, forecast, limit=self.memory_limit))
        return forecast

    @property
    def cost_unknown(self) -> str:
        """It is that of whatever it chooses."""
        return "it chooses what fits"

    @property
    def trains_anew(self) -> bool:
        """All among which it chooses do."""
        return True

    def init(self, problem: AbstractMoment, hyper: Hyper) -> Any:
        """The carry of the method that `select` chooses."""
        return self.select(problem, hyper).method.init(problem, hyper)

    def reserve(self, problem: AbstractMoment, hyper: Hyper) -> PyTree:
        """The memory of the method that `select` chooses."""
        return self.select(problem, hyper).method.reserve(problem, hyper)

    def estimate(self, problem: AbstractMoment, hyper: Hyper, carry: Any) -> tuple[Estimate, Any]:
        """One estimate of the method that `select` chooses."""
        return self.select(problem, hyper).method.estimate(problem, hyper, carry)

    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: Any) -> tuple[PyTree, Params]:
        """The conclusion of the method that `select` chooses."""
        return self.select(problem, hyper).method.conclude(problem, hyper, carry)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates: only batch methods are chosen."""

    def _parts(self, problem: AbstractMoment, hyper: Hyper) -> Parts:
        return Parts(problem, tree.as_hyper(hyper), self.rates)


@eqx.filter_jit
def _selected(problem: AbstractMoment, hyper: Hyper, limit: int, rates: Rates) -> Selection:
    # Compiled for the sake of what JAX remembers: there is nothing to run.
    weighed = candidates(Parts(problem, hyper, rates), limit=limit)
    fitting = [candidate for candidate in weighed if candidate.memory <= limit]
    eligible = [c for c in fitting if c.exactness is not Exactness.AT_THE_END]
    if not eligible:
        raise MemoryError(
            f"no method fits into {as_bytes(limit)}: raise memory_limit, or shorten the problem. The most "
            f"frugal are\n{_listed(weighed)}"
        )
    best = _best(eligible)
    table = tuple(_reasoned(candidate, best, limit) for candidate in weighed)
    (chosen,) = [i for i, candidate in enumerate(weighed) if candidate is best]
    return Selection(table, chosen, limit)


def too_large(
    parts: Parts, method: AbstractHyperGradient, forecast: Forecast, *, limit: int
) -> str:
    """The sentence about a method that does not fit, with those that do."""
    fitting = [c for c in frugal_candidates(parts, limit=limit) if c.memory <= limit]
    instead = f"What fits is\n{_listed(fitting)}" if fitting else "Nothing else fits either"
    return (
        f"{tree.as_code(method)} needs {as_bytes(forecast.memory)} on this problem, but the limit is "
        f"{as_bytes(limit)}. {instead}"
    )


def _best(eligible: list[Candidate]) -> Candidate:
    """The fastest exact one; of those whose times a forecast cannot tell apart, the most frugal."""
    exact = [c for c in eligible if c.exactness is Exactness.EXACT] or eligible
    fastest = min(candidate.time for candidate in exact)
    close = [candidate for candidate in exact if candidate.time <= _ALIKE * fastest]
    return min(close, key=lambda candidate: candidate.memory)


def _reasoned(candidate: Candidate, best: Candidate, limit: int) -> Candidate:
    """The candidate with the reason for which it is, or is not, the best."""
    if candidate.forecast is None:
        return candidate
    if candidate is best:
        why = "the fastest that fits, or as fast with less memory"
    elif candidate.memory > limit:
        why = f"does not fit into {as_bytes(limit)}"
    elif candidate.exactness is not Exactness.EXACT:
        why = "fits"
    elif candidate.time > _ALIKE * best.time:
        why = f"fits, but takes {candidate.time / best.time:.2f} times as long as the chosen"
    else:
        why = "fits, as fast as the chosen, and takes more memory"
    unknown = ", ".join(sorted(candidate.forecast.unknown))
    without = f"the time of {unknown} is not known" if unknown else ""
    return candidate._replace(reason="; ".join(filter(None, (why, candidate.reason, without))))


def _listed(weighed: list[Candidate]) -> str:
    """The five that need the least memory."""
    known = [candidate for candidate in weighed if candidate.forecast is not None]
    known.sort(key=lambda candidate: candidate.memory)
    return "\n".join("  " + str(candidate).rstrip() for candidate in known[:5])


def _checked(memory_limit: int | float) -> int:
    number = isinstance(memory_limit, int | float) and not isinstance(memory_limit, bool)
    if not number or not 0 < memory_limit < math.inf:
        raise ValueError(
            f"AutoHyperGradient got memory_limit={memory_limit!r}, but it must be a positive number of bytes: "
            "write 2e9 for 2 GB"
        )
    return int(memory_limit)
