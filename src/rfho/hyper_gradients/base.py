"""One interface for every way to a hypergradient.

    carry = method.init(problem, hyper)
    estimate, carry = method.estimate(problem, hyper, carry)

The carry makes batch, warm-started and online methods the same thing: batch methods carry nothing,
online methods the training run itself.
"""

import abc
import enum
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfho._engines.left_out import norm_at_params
from rfho._engines.reverse import Sweep, own_objectives, roll
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import HyperGradientError
from rfho.files import Planned
from rfho.hyper_gradients.watch import Watch
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment
from rfho.problem.objective import Reading
from rfho.typing import Hyper, Params, PyTree, Scalar, State

_ROUNDINGS = 16
"""Rounding errors of a step, fitted so that 999 of 1000 random trainings in float32 stay below."""


class Mode(enum.Enum):
    """How a method takes derivatives through training, which the dynamics must then allow."""

    FORWARD = "forward"
    REVERSE = "reverse"


class Aux(NamedTuple):
    """What an estimate knows besides value and hypergradient.

    Attributes:
        params: w at which the objective was read.
        stats: named scalars that say how far the estimate can be trusted; each method documents its
            own. Names with one meaning for all: ``"error"``, an estimate of ‖ĝ - ∇f‖ for a method that is
            biased, ``"error_bound"``, what it is below, ``"standard_error"``, the scatter of one that is random,
            ``"rounding"``, what arithmetic leaves of one that is exact; the first three
            also as ``"relative_…"``, by ‖∇f‖. `rfho.diagnose` reads them.
        state: s of which ``params`` are the output; None in what an outer loop reports.
    """

    params: Params
    stats: dict[str, Scalar]
    state: State | None = None


class Estimate(NamedTuple):
    """One estimate of f(λ) and ∇f(λ).

    Attributes:
        value: f(λ), a scalar (or a prefix of scalars, where the problem has several objectives).
        hypergradient: ∇f(λ), in the structure of λ.
        aux: see `Aux`.
    """

    value: PyTree
    hypergradient: Hyper
    aux: Aux

    @property
    def error(self) -> Scalar | None:
        """‖ĝ - ∇f‖ as far as the method knows it, so that no coordinate is wrong by more; None if it says nothing.

        A bound where there is a finite one; otherwise what the method estimates of its bias, or its scatter (one
        standard error). Never less than what it knows of its rounding.
        """
        names = ("error_bound", "error", "standard_error", "rounding")
        known = [self.aux.stats[name] for name in names if name in self.aux.stats]
        if not known:
            return None
        *better, error = known
        for one in reversed(better):
            error = jnp.where(jnp.isfinite(one), one, error)
        return jnp.maximum(error, self.aux.stats.get("rounding", 0.0))


class AbstractHyperGradient(eqx.Module):
    """What every method offers; all methods are pure, and traceable unless they say otherwise."""

    @abc.abstractmethod
    def init(self, problem: AbstractMoment, hyper: Hyper) -> Any:
        """The carry before the first estimate."""

    @abc.abstractmethod
    def estimate(self, problem: AbstractMoment, hyper: Hyper, carry: Any) -> tuple[Estimate, Any]:
        """One estimate at ``hyper``, and the carry for the next."""

    @abc.abstractmethod
    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: Any) -> tuple[PyTree, Params]:
        """The objective and the trained parameters with which a run that ends at ``hyper`` ends."""

    def reserve(self, problem: AbstractMoment, hyper: Hyper) -> Any:
        """Memory that `estimate` takes as its carry, uses and gives back; None if it has no use for it.

        For loops that donate it from one estimate to the next: no fresh memory is touched then.
        """
        return None

    @property
    def mode(self) -> Mode | None:
        """How derivatives are taken: forward or reverse through all of training; None for neither."""
        return None

    @property
    def trains_anew(self) -> bool:
        """Whether each estimate is one training run of T steps, from the problem's ``init`` to ``aux.state``."""
        return False

    def reach(self, problem: AbstractMoment) -> int:
        """How many of the T steps, counted from the last, the derivative goes back through."""
        return problem.horizon

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """Whether every estimate has the derivative through s_0, for hyperparameters that reach nothing else."""
        return True

    @property
    def driven_from_python(self) -> bool:
        """Whether `estimate` and `conclude` run from Python instead of being traced as a whole."""
        return False

    def watched(self, watch: Watch) -> "AbstractHyperGradient":
        """The same method, whose estimates tell ``watch`` how far they are; only if it is driven.

        A method that is traced as a whole has nothing to tell.
        """
        return self

    def written(
        self, problem: AbstractMoment, hyper: Hyper, folder: str | None
    ) -> tuple[Planned, ...]:
        """What an estimate writes to disks: of its own accord, and into ``folder`` if it is kept there."""
        return ()

    def complaint(self, stats: dict[str, float]) -> HyperGradientError | None:
        """The error that `tune` and `hyper_gradient` raise about the statistics of an estimate, if any."""
        return None

    def cost(self, parts: Parts) -> Forecast | None:
        """What one estimate will cost; None where nobody knows, see `cost_unknown`."""
        return None

    @property
    def cost_unknown(self) -> str:
        """Why there is no forecast, where there is none."""
        return "no forecast has been written for it"

    @abc.abstractmethod
    def limit(self, problem: AbstractMoment) -> int | None:
        """How many estimates one run can give; None if any number."""


def aux_of(problem: AbstractMoment, state: State, stats: dict[str, Scalar]) -> Aux:
    """What an estimate whose objective was read at ``state`` knows."""
    return Aux(problem.dynamics.output(state), stats, state)


def evaluated(problem: AbstractMoment, hyper: Hyper) -> tuple[PyTree, Params]:
    """f(λ) and w_T by a plain training run: the conclusion of batch methods."""
    state = roll(problem, hyper, problem.init(hyper), span=Span(0, problem.horizon))
    params = problem.dynamics.output(state)
    return problem.evaluate(params, hyper), params


def estimated(problem: AbstractMoment, hyper: Hyper, swept: Sweep) -> Estimate:
    """The estimate that a reverse sweep brings back, with the norms of the adjoint at both of its ends."""
    norm = norm_at_params(problem, swept.state)
    stats = {"seed_norm": norm(swept.seed), "adjoint_norm": norm(swept.adjoint)}
    hypergradient = own_objectives(problem, hyper, swept)
    stats["rounding"] = rounding(problem, hypergradient, stats)
    aux = aux_of(problem, swept.state, stats)
    return Estimate(problem.values(swept.value), hypergradient, aux)


def rounding(
    problem: AbstractMoment, hypergradient: Hyper, stats: dict[str, Scalar], *, width: float = 0.0
) -> Float[Array, ""]:
    """What arithmetic may have left of an exact hypergradient, in norm: an estimate, not a bound.

    So many roundings per step, over T steps, grown as the adjoint has grown. It takes no account of terms that
    cancel each other, as they do where λ has nearly arrived. ``width`` is that of the states, where it is more
    than that of floats.
    """
    seed, adjoint = stats["seed_norm"], stats["adjoint_norm"]
    grown = jnp.maximum(1, jnp.where(seed > 0, adjoint / jnp.where(seed > 0, seed, 1), 1))
    return _rounded(problem, hypergradient, width) * grown * tree.norm(hypergradient)


def rounding_along(
    problem: AbstractMoment, hypergradient: Hyper, reading: Reading, tangent_norm: Scalar
) -> Float[Array, ""]:
    """The same of tangents that were pushed along: by the longest that ∂_sE Z_T + ∂_λE could be."""
    longest = tree.norm(reading.by_state) * tangent_norm + tree.norm(reading.by_hyper)
    return _rounded(problem, hypergradient, 0.0) * longest


def _rounded(problem: AbstractMoment, hypergradient: Hyper, width: float) -> float:
    leaves = jax.tree.leaves(hypergradient)
    width = max(width, *(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves))
    return _ROUNDINGS * width * math.sqrt(problem.horizon)
