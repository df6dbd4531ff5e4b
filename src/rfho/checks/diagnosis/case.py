"""What is under diagnosis, and the runs that all questions about it share."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

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

T = TypeVar("T")


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


def attempted(run: Callable[[], T], mode: str) -> T | Finding:
    """What ``run`` gives, or the finding that training cannot be differentiated in this mode."""
    try:
        return run()
    except (TypeError, ValueError, NotImplementedError) as error:
        account = str(error).partition("\n")[0]
        if not any(word in account.lower() for word in ("differentiation", "forward-mode", "jvp")):
            raise
        message = (
            f"training cannot be differentiated in {mode} mode (JAX says: {account}): take the other mode, or a "
            "method without derivatives such as rfho.PersistentEvolutionHyperGradient"
        )
        return Finding(Kind.NOT_DIFFERENTIABLE, Where(), message, Severity.ERROR)
