"""What is under diagnosis, and the runs that all questions about it share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfho._programs.walk import lines_with
from rfho.checks.attempt import NoDerivative
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.signal import (
    Mended,
    Pushes,
    Record,
    leaf_paths,
    pushed_along,
    there_and_back,
)
from rfho.checks.finite_differences import rounding_of
from rfho.checks.line import Line
from rfho.domains.space import Space
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper

_UNPULLED = (
    "while",
    "pure_callback",
    "io_callback",
    "custom_vjp_call",
)  # by reverse or forward mode


class Near(NamedTuple):
    """A run at a point of the line.

    Attributes:
        value: the sum of the objectives.
        hypergradient: of each objective, stacked if there are several.
    """

    value: float
    hypergradient: Hyper


class Case(NamedTuple):
    """A problem at λ.

    Attributes:
        problem: as it stands at its outer step.
        hyper: the learned leaves.
        space: where they may lie.
        line: on which differences are taken.
    """

    problem: AbstractMoment
    hyper: Hyper
    space: Space
    line: Line

    def record(self, hold: int = -1, mended: Mended | None = None) -> Record:
        """A run there and back, with step ``hold`` to be looked at."""
        return there_and_back(self.problem, self.hyper, jnp.asarray(hold), mended)

    def near(self, h: float) -> Near:
        """A run at λ(h)."""
        record = there_and_back(self.problem, self.line.at(h), jnp.asarray(-1))
        return Near(float(jnp.sum(record.value)), record.hypergradient)

    def pushes(self) -> Pushes:
        """A run with its tangent along the line."""
        return pushed_along(self.problem, self.hyper, self.line.velocity)

    @property
    def paths(self) -> list[str]:
        """The columns of a `Record`."""
        return leaf_paths(self.problem, self.hyper)

    @property
    def epsilon(self) -> float:
        """The rounding of a run."""
        return rounding_of((self.hyper, jax.eval_shape(self.problem.init, self.hyper)))


def no_way_back(case: Case, reverse: NoDerivative, *, forward: bool) -> Finding:
    """What is said if reverse mode is not to be had, and forward mode is, or neither."""
    state = jax.eval_shape(case.problem.init, case.hyper)
    lines = lines_with(_UNPULLED, lambda s, h: case.problem.step(s, h, 0), state, case.hyper)
    remedy = (
        "take ForwardHyperGradient, or RealTimeHyperGradient, which go forward"
        if forward
        else "forward mode cannot either. Take FirstOrderHyperGradient, which needs no second derivatives, where "
        "training descends a loss, or PersistentEvolutionHyperGradient, which needs none at all"
    )
    message = (
        f"training cannot be differentiated in reverse mode (JAX says: {reverse.account}"
        f"{''.join(f'; see {line}' for line in lines)}): {remedy}"
    )
    return Finding(Kind.NOT_DIFFERENTIABLE, Where(), message, Severity.ERROR)
