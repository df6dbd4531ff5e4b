"""Refusing what cannot fit into memory, before anything of it is allocated."""

import jax

from rfho._programs import trees as tree
from rfho._programs.roofline import Rates
from rfho.choice.forecast import Forecast, Parts
from rfho.files import as_bytes
from rfho.hyper_gradients.auto import too_large
from rfho.hyper_gradients.base import AbstractHyperGradient
from rfho.memory.device import free_host_memory, free_memory, is_of_host
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper

_BEYOND_DOUBT = 64
"""A problem whose states take less than this fraction of what is free is not looked at further."""


def refuse_what_cannot_fit(
    problem: AbstractMoment, hyper: Hyper, method: AbstractHyperGradient, *, members: int = 1
) -> None:
    """Refuses a method whose estimate needs more memory than there is.

    From shapes alone: nothing is run, and problems that are small beyond doubt cost nothing.

    Args:
        problem: its arrays may be traced.
        hyper: the learned leaves of λ, likewise.
        method: how hypergradients are computed.
        members: how many of them side by side.

    Raises:
        MemoryError: it does not fit; the message lists the methods that do, with their figures.
    """
    free = free_memory() // members
    state = tree.nbytes(jax.eval_shape(problem.init, hyper))
    held = tree.nbytes((problem.train, problem.valid)) + tree.nbytes(hyper)
    most = 4 * state * max(problem.horizon, tree.size(hyper)) + held
    if _BEYOND_DOUBT * most <= free:
        return
    parts = Parts(problem, hyper, Rates())
    forecast = method.cost(parts)
    if forecast is None:
        return
    if forecast.memory > free:
        raise MemoryError(too_large(parts, method, forecast, limit=free))
    beside = forecast.memory if is_of_host() else 0
    _check_host(method, forecast, free_host_memory() // members - beside)


def _check_host(method: AbstractHyperGradient, forecast: Forecast, free: int) -> None:
    """Refuses states on a shelf, or a tape, that the host has no memory for."""
    if forecast.host > max(0, free):
        raise MemoryError(
            f"{tree.as_code(method)} keeps {as_bytes(forecast.host)} in the memory of the host, but "
            f"{as_bytes(max(0, free))} are free there: give fewer slots=, or shelf=rfho.DiskShelf(folder); a tape "
            "on the host is smaller under rfho.Binomial(slots)"
        )
