r"""The members of a run, and how all of them take an outer step.

.. math:: \lambda^i_k = P_i\bigl(\lambda^i_{k-1} + \mathrm{update}(\nabla f(\lambda^i_{k-1}))\bigr),
          \qquad i = 1, \dots, n

One member takes its step as it is, in memory that is reserved once. Several take it side by side, by
`jax.vmap`: a matrix product with the data is done once for all of them. A method that is driven from Python
takes the steps of its members in turn.
"""

import abc
import collections
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rfho._programs.begun import begun
from rfho.hyper_gradients import Estimate
from rfho.memory.shards import to_host
from rfho.outer.beginning import Reserved
from rfho.outer.stack import member, stacked, with_member
from rfho.outer.tuner import Tuner, TunerState
from rfho.placement import Members
from rfho.problem.problem import Problem
from rfho.typing import Hyper, Params, PyTree

_REMEMBERED = (
    3  # the last state, and two before it: a failure is seen two steps after its last good λ
)


class Taken(NamedTuple):
    """One member's outer step, on the host but for its parameters.

    Attributes:
        free: the learned leaves of λ after it.
        value, hypergradient, stats: of its estimate.
        finite: whether all of these were finite.
        params: gives those of the estimate, on the device.
    """

    free: Hyper
    value: PyTree
    hypergradient: Hyper
    stats: dict[str, Any]
    finite: Any
    params: Callable[[], Params]


Wait = Callable[[PyTree], Any]
"""Waits for what a program computes; a second signal ends that by KeyboardInterrupt."""


class AbstractGroup(abc.ABC):
    """The members of a run, each at its own state."""

    def __init__(
        self,
        tuner: Tuner,
        problem: Problem,
        past: Sequence[Sequence[TunerState]],
        scales: Sequence[float] | None,
        wait: Wait,
    ) -> None:
        self.tuner = tuner
        self._wait = wait
        self.problem = problem
        self.count = len(past[-1])
        self.scales = None if scales is None else list(scales)
        self._past: collections.deque[Any] = collections.deque(maxlen=_REMEMBERED)

    @abc.abstractmethod
    def advance(self, running: Sequence[bool]) -> list[Taken]:
        """One step of all members; of one that does not run any more nothing is to be read."""

    @abc.abstractmethod
    def state(self, i: int, steps_back: int = 0) -> TunerState:
        """Where member i stands, or stood up to two steps ago, as far as its group has gone back."""

    @abc.abstractmethod
    def go_back(self, i: int, state: TunerState, scale: float) -> None:
        """Member i stands at ``state`` from now on, and its outer steps are multiplied by ``scale``."""

    @abc.abstractmethod
    def release(self) -> None:
        """Frees what only a further step would need: the run has ended."""

    @abc.abstractmethod
    def conclude(self, states: Sequence[TunerState]) -> list[tuple[PyTree, Params]]:
        """What members that end at ``states`` end with."""

    def _seen(self, after: TunerState, estimate: Estimate, params: Callable[[], Params]) -> Taken:
        stats = estimate.aux.stats
        numbers = (after.free, estimate.value, estimate.hypergradient, stats, after.finite)
        self._wait(numbers)
        # To the host at once: device scalars kept in a list leak.
        free, value, gradient, stats, finite = to_host(numbers)
        return Taken(free, value, gradient, stats, finite, params)


class InTurn(AbstractGroup):
    """Members that take their steps one after another; a single member takes them in reserved memory."""

    def __init__(
        self,
        tuner: Tuner,
        problem: Problem,
        past: Sequence[Sequence[TunerState]],
        scales: Sequence[float] | None,
        wait: Wait,
        reserved: Reserved | None = None,
    ) -> None:
        super().__init__(tuner, problem, past, scales, wait)
        self._steps = [self._steps_of(i, state, reserved) for i, state in enumerate(past[-1])]
        self._past.extend(map(tuple, past))

    def advance(self, running: Sequence[bool]) -> list[Taken]:
        """The next step of each that runs."""
        states, taken = list(self._past[-1]), list[Taken]()
        for i, steps in enumerate(self._steps):
            if running[i] or not taken:
                states[i], estimate = next(steps)
                one = self._seen(states[i], estimate, lambda estimate=estimate: estimate.aux.params)
            else:
                one = taken[0]
            taken.append(one)
        self._past.append(tuple(states))
        return taken

    def state(self, i: int, steps_back: int = 0) -> TunerState:
        """Where member i stands."""
        return self._past[-1 - min(steps_back, len(self._past) - 1)][i]

    def go_back(self, i: int, state: TunerState, scale: float) -> None:
        """The memory that it had reserved is freed first."""
        past = [(*row[:i], state, *row[i + 1 :]) for row in self._past]
        self._past = collections.deque(past, _REMEMBERED)
        if self.scales is not None:
            self.scales[i] = scale
        self._steps[i].close()
        self._steps[i] = self._steps_of(i, state)

    def _steps_of(
        self, i: int, state: TunerState, reserved: Reserved | None = None
    ) -> Generator[tuple[TunerState, Estimate]]:
        tuner = self.tuner if self.scales is None else self.tuner.scaled(self.scales[i])
        return tuner.steps(self.problem, state, reserved)

    def release(self) -> None:
        """Frees the reserved memory."""
        self._steps.clear()

    def conclude(self, states: Sequence[TunerState]) -> list[tuple[PyTree, Params]]:
        """One after another."""
        return [self.tuner.conclude(self.problem, state) for state in states]


class SideBySide(AbstractGroup):
    """Members in one program."""

    def __init__(
        self,
        tuner: Tuner,
        problem: Problem,
        past: Sequence[Sequence[TunerState]],
        scales: Sequence[float] | None,
        wait: Wait,
        placement: Members | None = None,
    ) -> None:
        problem = problem if placement is None else placement.whole(problem)
        super().__init__(tuner, problem, past, scales, wait)
        self._on_its_way = False
        self._placement = placement
        self._past.extend(map(self._together, past))

    def advance(self, running: Sequence[bool]) -> list[Taken]:
        """One step of all; those that have ended compute on, unheard."""
        after, estimates = _step(self.tuner, self.problem, self._past[-1], self._factors())
        self._on_its_way = True
        seen = self._seen(after, estimates, lambda: estimates.aux.params)
        self._on_its_way = False
        self._past.append(after)
        return [
            member(seen._replace(params=None), i)._replace(
                params=functools.partial(member, estimates.aux.params, i)
            )
            for i in range(self.count)
        ]

    def state(self, i: int, steps_back: int = 0) -> TunerState:
        """Where member i stands."""
        together = self._past[-1 - min(steps_back, len(self._past) - 1)]
        # While a step is on its way no other program is begun, which would wait for it.
        return member(to_host(together) if self._on_its_way else together, i)

    def go_back(self, i: int, state: TunerState, scale: float) -> None:
        """The others stay where they are."""
        past = [self._spread(with_member(together, i, state)) for together in self._past]
        self._past = collections.deque(past, _REMEMBERED)
        if self.scales is not None:
            self.scales[i] = scale

    def _together(self, states: Sequence[TunerState]) -> TunerState:
        return self._spread(stacked(states, "hypers"))

    def _spread(self, together: TunerState) -> TunerState:
        return together if self._placement is None else self._placement.spread(together)

    def _factors(self) -> Array | None:
        return None if self.scales is None else jnp.asarray(self.scales)

    def release(self) -> None:
        """Nothing is reserved."""

    def conclude(self, states: Sequence[TunerState]) -> list[tuple[PyTree, Params]]:
        """All at once."""
        ends = _conclude(self.tuner, self.problem, self._together(states))
        return [member(ends, i) for i in range(len(states))]


def group_of(
    tuner: Tuner,
    problem: Problem,
    past: Sequence[Sequence[TunerState]],
    scales: Sequence[float] | None = None,
    *,
    wait: Wait,
    placement: Members | None = None,
    reserved: Reserved | None = None,
) -> AbstractGroup:
    """The group that fits the number of members and the method.

    Args:
        tuner: how they are stepped.
        problem: what is tuned.
        past: the states of all members, the last ones last.
        scales: what the outer steps of each are multiplied with; None if none is ever to go back.
        wait: waits for a step.
        placement: how members lie over devices; None on one.
        reserved: the memory of a single member, if there is some already.

    Raises:
        ValueError: several members differ in structure.
    """
    alone = len(past[-1]) == 1 and placement is None
    if alone or tuner.method.driven_from_python:
        return InTurn(tuner, problem, past, scales, wait, reserved)
    return SideBySide(tuner, problem, past, scales, wait, placement)


def alike(hypers: Sequence[Hyper]) -> tuple[Hyper, ...]:
    """``hypers`` with numbers that differ between members as arrays, which one program can take."""
    each = [jax.tree.flatten(hyper) for hyper in hypers]
    if len({len(leaves) for leaves, _ in each}) != 1:
        return tuple(hypers)  # refused later, with their structures
    columns = [_together(column) for column in zip(*(leaves for leaves, _ in each), strict=True)]
    rows = zip(*columns, strict=True)
    return tuple(jax.tree.unflatten(kind, row) for (_, kind), row in zip(each, rows, strict=True))


def _together(leaves: tuple[Any, ...]) -> tuple[Any, ...]:
    differ = all(isinstance(leaf, float) for leaf in leaves) and len(set(leaves)) > 1
    return tuple(map(jnp.asarray, leaves)) if differ else leaves


@begun
def _step(
    tuner: Tuner, problem: Problem, states: TunerState, scales: Array | None
) -> tuple[TunerState, Estimate]:
    def one(state: TunerState, scale: Array | None) -> tuple[TunerState, Estimate]:
        return (tuner if scale is None else tuner.scaled(scale)).step(problem, state)

    return eqx.filter_vmap(one)(states, scales)


@begun
def _conclude(tuner: Tuner, problem: Problem, states: TunerState) -> tuple[PyTree, Params]:
    return eqx.filter_vmap(lambda state: tuner.conclude(problem, state))(states)
