"""The one outer loop: its clock, its history, its listeners, and an honest reason for its end."""

import functools
import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import optax

from rfho.checks.diagnosis import HyperGradientWarning
from rfho.errors import HyperGradientError, Result, positive_int
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.outer.events import AbstractRun, Audience, Listener, Start
from rfho.outer.group import AbstractGroup, Taken, group_of
from rfho.outer.report import Report, Solution
from rfho.outer.tuner import Tuner, TunerState
from rfho.outer.watched import Watched
from rfho.problem.problem import Problem
from rfho.typing import Hyper, PyTree

Rows = tuple[Report | None, ...]
"""One report for each member; None for those that have ended."""


class How(NamedTuple):
    """How members are tuned: what all verbs take.

    Attributes:
        method: how hypergradients are computed.
        optim: the outer optimiser.
        domains: of each member.
        steps: outer steps; 100 if None, or as many as the training run of an online method has.
        tolerance: a member ends when ‖λ_k - λ_{k-1}‖ <= tolerance · (1 + ‖λ_{k-1}‖).
        listeners: who is told.
        run: what keeps the outer state; None if nothing does.
    """

    method: AbstractHyperGradient
    optim: optax.GradientTransformation
    domains: tuple[PyTree, ...]
    steps: int | None
    tolerance: float
    listeners: Sequence[Listener]
    run: AbstractRun | None


class Session:
    """A run that goes on: the members, and what is known of each.

    Raises:
        TypeError, ValueError: the arguments do not fit each other; before anything runs.
    """

    def __init__(self, problem: Problem, hypers: Sequence[Hyper], how: How) -> None:
        if not isinstance(problem, Problem):
            raise TypeError(f"got a {type(problem).__name__} where a rfho.Problem was expected")
        _check_tolerance(how.tolerance)
        listeners = how.listeners if how.run is None else (*how.listeners, how.run)
        self.audience = Audience(listeners)
        tuner = Tuner(how.method, how.optim)
        self.total = outer_steps(how.method, problem, how.steps)
        self.planned = (
            Result.HORIZON_REACHED if how.method.limit(problem) == self.total else Result.STEPS_DONE
        )
        self._how = how
        self._problem = problem
        side_by_side = 1 if how.method.driven_from_python else len(hypers)
        states = tuple(
            Tuner(how.method, how.optim, domain).init(problem, hyper, members=side_by_side)
            for domain, hyper in zip(how.domains, hypers, strict=True)
        )
        watched = Tuner(how.method.watched(self.audience.segment), how.optim)
        restored = None if how.run is None else how.run.restored(states)
        if restored is not None:
            states = restored.states
        histories = ((),) * len(states) if restored is None else restored.histories
        self.members = [
            Watched(i, state, history)
            for i, (state, history) in enumerate(zip(states, histories, strict=True))
        ]
        _check_alike(states)
        self.group: AbstractGroup = group_of(watched, problem, states)
        self._tuner = tuner
        self._hypers = tuple(hypers)

    def reports(self) -> Iterator[Rows]:
        """One outer step after another, until all members have ended or all steps are done."""
        self.audience.start(Start(self._problem, self._how.method, self._hypers, self.total))
        first = 1 + max(len(member.history) for member in self.members)
        for step in range(first, self.total + 1):
            yield self._step(step)
            if all(member.ended for member in self.members):
                return

    def solutions(self, result: Result, error: Exception | None = None) -> tuple[Solution, ...]:
        """Where all members stand; a run that ended as planned reads its last objectives."""
        ends = [self._end(member) for member in self.members]
        self.group.release()
        together = functools.cache(lambda: self.group.conclude(ends))
        solutions: list[Solution] = []
        for i, member in enumerate(self.members):
            ended = member.ended or result
            if not ended.failed and ended is not Result.STOPPED:
                value, params = together()[i]
                member.consider_end(jax.device_get(value), params)
            solution = Solution(
                member.hyper,
                best=member.best,
                history=tuple(member.history),
                result=ended,
                conclude=lambda i=i: together()[i],
                error=member.error or error,
            )
            solutions.append(solution)
            if not ended.failed and ended is not Result.STOPPED:
                _ = solution.value
        return tuple(solutions)

    def _step(self, step: int) -> Rows:
        begin = time.perf_counter()
        running = [member.ended is None for member in self.members]
        taken = self.group.advance(running)
        seconds = time.perf_counter() - begin
        rows = tuple(
            self._report(member, one, step, seconds) if runs else None
            for member, one, runs in zip(self.members, taken, running, strict=True)
        )
        if self._how.run is not None:
            last = step == self.total or all(member.ended for member in self.members)
            self._how.run.keep(self._states, last=last)
        return rows

    def _report(self, member: Watched, taken: Taken, step: int, seconds: float) -> Report | None:
        report, findings = member.saw(self._how.method, taken, step=step, seconds=seconds)
        for finding in findings:
            self.audience.finding(finding)
        if report is not None:
            self.audience.step(report)
            member.converged(self._how.tolerance)
        return report

    def _states(self) -> tuple[TunerState, ...]:
        return tuple(self._end(member) for member in self.members)

    def _end(self, member: Watched) -> TunerState:
        return self.group.state(member.number, member.steps_back)


def tuned(
    problem: Problem, hypers: Sequence[Hyper], how: How, *, throw: bool
) -> tuple[Solution, ...]:
    """Tunes all of ``hypers`` and says where each of them ended; see `rfho.tune` and `rfho.tune_many`."""
    session = Session(problem, hypers, how)
    result, error = session.planned, None
    try:
        for _ in session.reports():
            pass
    except KeyboardInterrupt:
        result = Result.STOPPED
    except HyperGradientWarning:
        result = Result.FAILED
        raise
    except Exception as raised:
        result, error = (Result.STOPPED, None) if is_interrupt(raised) else (Result.FAILED, raised)
        if isinstance(raised, TypeError | ValueError) and not session.members[0].history:
            raise
    finally:
        session.audience.close(session.members[0].ended or result)
    solutions = session.solutions(result, error)
    if throw:
        raise_first(solutions)
    return solutions


def reported(problem: Problem, hypers: Sequence[Hyper], how: How, *, throw: bool) -> Iterator[Rows]:
    """The same as a loop: one row of reports for each outer step; see `rfho.iterate`."""
    session = Session(problem, hypers, how)
    result = Result.STOPPED
    try:
        for rows in session.reports():
            if throw:
                raise_first(session.solutions(result)) if None in rows else None
            yield rows
        result = session.planned
    except Exception as raised:
        result = raised.result if isinstance(raised, HyperGradientError) else Result.FAILED
        if getattr(raised, "solution", None) is None:
            raised.solution = session.solutions(result)[0]  # type: ignore[attr-defined]
        raise
    finally:
        session.audience.close(session.members[0].ended or result)


def raise_first(solutions: tuple[Solution, ...]) -> None:
    """Raises the first error of a run; it carries the solution of its member, with all that was found."""
    for solution in solutions:
        if solution.error is not None:
            solution.error.solution = solution  # type: ignore[attr-defined]
            raise solution.error


def is_interrupt(error: Exception) -> bool:
    """Whether JAX has wrapped a Ctrl-C that came while a function of the host was running."""
    return "KeyboardInterrupt" in str(error)


def outer_steps(method: AbstractHyperGradient, problem: Problem, steps: int | None) -> int:
    """How many outer steps there will be: ``steps``, 100 by default, or as many as the method can take.

    Raises:
        ValueError: ``steps`` is no int of 1 or more, or the method can take none.
    """
    if steps is not None:
        steps = positive_int(steps, "steps", "tune")
    limit = method.limit(problem)
    if limit is None:
        return 100 if steps is None else steps
    if limit == 0:
        raise ValueError(
            f"{type(method).__name__} updates less often than the horizon of {problem.horizon} steps is "
            "long, so it would never update: lower every, or raise horizon"
        )
    return limit if steps is None else min(steps, limit)


def _check_alike(states: Sequence[TunerState]) -> None:
    kinds = [jax.tree.structure(state.space) for state in states]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"domains[{i}] differs from domains[0] in its kinds of domain, but members run side by side: give "
                "all of them the same kinds, with bounds or radii of their own"
            )


def _check_tolerance(tolerance: float) -> None:
    is_number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not is_number or not 0 <= tolerance < math.inf:
        raise ValueError(
            f"tune got tolerance={tolerance!r}, but it must be a number of 0 or more, 0 to do all steps"
        )
