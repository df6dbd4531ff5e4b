"""A dynamics under test, its steps, and what it pulls back."""

from typing import Any, NamedTuple

from rfho.checks import ladder
from rfho.dynamics import AbstractDynamics

LADDER = ladder(0.01)
"""The steps along a direction of λ at which finite differences ask for values."""


class Pulled(NamedTuple):
    """A step that was remembered and pulled back.

    Attributes:
        after: the state that `remember` gave.
        memory: what it kept.
        again: the state that `again` gave, if the dynamics has it.
        before: state and memory that `invert` gave, if the dynamics has it.
        cotangents: of state and hyper, for the adjoint of the trial.
        of_zero: likewise for a zero adjoint.
        of_both: for the adjoint and its negative under vmap.
    """

    after: Any
    memory: Any
    again: Any
    before: Any
    cotangents: Any
    of_zero: Any
    of_both: Any


class Steps(NamedTuple):
    """What one compiled program found out about the dynamics.

    Attributes:
        state, after, later: three states, one step after the other.
        scanned: ``later`` by a loop.
        params: the output of ``after``.
        vjp, jvp: of the step from ``state``.
        many: that step for two λ at once.
        slope: of a function of λ, along a direction.
        around: its values at every step of `LADDER`, there and then in the other direction.
        pulled: the step pulled back, by what is kept of it.
    """

    state: Any
    after: Any
    later: Any
    scanned: Any
    params: Any
    vjp: Any
    jvp: Any
    many: Any
    slope: Any
    around: Any
    pulled: dict[str, Pulled]


class DynamicsTrial(NamedTuple):
    """Dynamics under test, where they are tried, and what came of it.

    Attributes:
        dynamics: under test.
        hyper: λ.
        batch: b, the same at every step.
        tolerance: of comparisons with finite differences.
        steps: what the compiled program gave; None while it is not known to compile.
        repeated: what it gave when it was called again.
    """

    dynamics: AbstractDynamics
    hyper: Any
    batch: Any
    tolerance: float
    steps: Any = None
    repeated: Any = None
