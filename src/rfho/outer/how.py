"""How members are tuned: what all verbs take, and where that begins."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from rfho.hyper_gradients import AbstractHyperGradient
from rfho.outer.beginning import Reserved
from rfho.outer.events import AbstractRun, Listener
from rfho.outer.retry import Retry
from rfho.outer.tuner import Tuner, TunerState
from rfho.placement import Members
from rfho.problem.problem import Problem
from rfho.typing import Hyper, PyTree


class How(NamedTuple):
    """How members are tuned: what all verbs take.

    Attributes:
        method: how hypergradients are computed.
        optim: the outer optimiser.
        domains: of each member.
        steps: outer steps; 100 if None, or as many as the training run of an online method has.
        tolerance: a member ends when ‖λ_k - λ_{k-1}‖ <= tolerance · (1 + ‖λ_{k-1}‖).
        choose: data on which the best step is chosen; None to go by the objective.
        listeners: who is told.
        run: what keeps the outer state; None if nothing does.
        retry: when a member goes back; None if never.
        placement: how members lie over devices; None on one.
    """

    method: AbstractHyperGradient
    optim: optax.GradientTransformation
    domains: tuple[PyTree, ...]
    steps: int | None
    tolerance: float
    choose: Any
    listeners: Sequence[Listener]
    run: AbstractRun | None
    retry: Retry | None
    placement: Members | None = None

    def side_by_side(self, members: int) -> int:
        """How many of so many members one device steps at a time.

        Raises:
            ValueError: they cannot lie as they should.
        """
        if self.placement is None:
            return 1 if self.method.driven_from_python else members
        if self.method.driven_from_python:
            raise ValueError(
                f"{type(self.method).__name__} steps its members in turn from Python, so that they cannot lie over "
                "devices: leave placement out, or take a method that runs in one program"
            )
        return self.placement.on_each(members)

    def begin(
        self, problem: Problem, hypers: Sequence[Hyper]
    ) -> tuple[tuple[TunerState, ...], Reserved | None]:
        """Where all members begin, and the memory of a single one.

        Raises:
            TypeError, ValueError, MemoryError: the arguments do not fit each other.
        """
        side_by_side = self.side_by_side(len(hypers))
        alone = len(hypers) == 1 and self.placement is None
        begun = [
            Tuner(self.method, self.optim, domain).begin(
                problem, hyper, members=side_by_side, reserves=alone
            )
            for domain, hyper in zip(self.domains, hypers, strict=True)
        ]
        states = tuple(state for state, _ in begun)
        _check_alike(states)
        return states, begun[0][1] if alone else None

    def hurry(self) -> None:
        """Tells the run that it is to end without saving."""
        if self.run is not None:
            self.run.hurry()


def _check_alike(states: Sequence[TunerState]) -> None:
    kinds = [jax.tree.structure(state.space) for state in states]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"domains[{i}] differs from domains[0] in its kinds of domain, but members run side by side: give "
                "all of them the same kinds, with bounds or radii of their own"
            )
