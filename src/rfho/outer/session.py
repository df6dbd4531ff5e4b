"""A run that goes on: its clock, its members with their histories, and who listens."""

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Sequence

from rfho.checks.diagnosis import Finding
from rfho.errors import Result, positive_int
from rfho.files import refuse_what_has_no_room
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.memory.shards import to_host
from rfho.outer.chooser import problem_to_choose_by
from rfho.outer.estimates import Interruptible
from rfho.outer.events import (
    Audience,
    Standing,
    Start,
    written_by_method,
)
from rfho.outer.group import AbstractGroup, Taken, group_of
from rfho.outer.how import How
from rfho.outer.peers import peers_of
from rfho.outer.report import Report, Solution
from rfho.outer.signals import StopSignals
from rfho.outer.tuner import Tuner
from rfho.outer.watched import Watched
from rfho.problem.problem import Problem
from rfho.typing import Hyper

Rows = tuple[Report | None, ...]
"""One report for each member; None for those that have ended."""


class Session:
    """A run that goes on: the members, and what is known of each.

    Raises:
        TypeError, ValueError: the arguments do not fit each other; before anything runs.
    """

    def __init__(
        self, problem: Problem, hypers: Sequence[Hyper], how: How, signals: StopSignals
    ) -> None:
        if not isinstance(problem, Problem):
            raise TypeError(f"got a {type(problem).__name__} where a rfho.Problem was expected")
        _check_tolerance(how.tolerance)
        listeners = how.listeners if how.run is None else (*how.listeners, how.run)
        self.audience = Audience(listeners)
        Tuner(how.method, how.optim)  # which looks at both
        self.total = outer_steps(how.method, problem, how.steps)
        self.planned = (
            Result.HORIZON_REACHED if how.method.limit(problem) == self.total else Result.STEPS_DONE
        )
        self._signals = signals
        self._how = how
        self._problem = problem
        self._start = Start(problem, how.method, tuple(hypers), self.total, how.optim, how.choose)
        states, reserved = how.begin(problem, hypers)
        self._peers = peers_of((problem, states))
        self._watch = Interruptible(self.audience, signals, how.run, self._standings, self._peers)
        watched = Tuner(how.method.watched(self._watch), how.optim)
        scales = None if how.retry is None else [1.0] * len(states)
        group = functools.partial(
            group_of,
            watched,
            problem,
            wait=self._watch.wait,
            placement=how.placement,
            reserved=reserved,
        )
        self.group: AbstractGroup = group([states], scales)
        judging = problem_to_choose_by(problem, how.choose)
        # Last, as nothing may fail between here and where the run is closed.
        standings = tuple(Standing(one, one) for one in map(self.group.state, range(len(states))))
        written = written_by_method if how.run is None else how.run.written
        refuse_what_has_no_room(written(self._start, standings))
        found = None if how.run is None else how.run.restored(self._start, standings)
        if found is not None:
            past = [[one.before for one in found], [one.state for one in found]]
            scaled = how.retry is not None or any(one.scale != 1 for one in found)
            scales = [one.scale for one in found] if scaled else None
            self.group = group(past, scales)
            standings = found
        self.members = [
            Watched(i, standing, start, retry=how.retry, judging=judging)
            for i, (standing, start) in enumerate(zip(standings, states, strict=True))
        ]

    def reports(self) -> Iterator[Rows]:
        """One outer step after another, until all members have ended or all steps are done.

        Raises:
            KeyboardInterrupt: a signal has come, and what it came into is done.
        """
        self.audience.start(self._start)
        if self._how.run is not None and self._how.run.replays:
            yield from self._past()
        for member in self.members:
            for finding in self._gone_back(member):
                self.audience.finding(finding)
        while any(running := self._running()):
            with self._peers.named():
                self._look()
                rows = self._step(running)
            yield rows

    def solutions(self, result: Result, error: Exception | None = None) -> tuple[Solution, ...]:
        """Where all members stand; a run that ended as planned reads its last objectives."""
        ends = [standing.state for standing in self._standings()]
        self.group.release()
        self._watch.over()
        together = functools.cache(lambda: self.group.conclude(ends))
        solutions: list[Solution] = []
        for i, member in enumerate(self.members):
            ended, read = member.ended or result, False
            if not ended.failed and ended is not Result.STOPPED:
                with contextlib.suppress(KeyboardInterrupt):  # a second signal: it is read later
                    value, params = together()[i]
                    self._watch.wait(value)
                    member.consider_end(to_host(value), params)
                    read = True
            solution = Solution(
                member.hyper,
                best=member.best,
                history=member.history,
                result=ended,
                conclude=lambda i=i: together()[i],
                error=member.error or error,
            )
            solutions.append(solution)
            if read:
                _ = solution.value
        return tuple(solutions)

    @property
    def has_failed(self) -> bool:
        """Whether something was raised about a member."""
        return any(member.error is not None for member in self.members)

    def _running(self) -> list[bool]:
        """Of each member whether it takes a further step."""
        return [
            member.ended is None and len(member.history) < self.total for member in self.members
        ]

    def _look(self) -> None:
        """Ends the loop if that is wished; of several processes all at once, with what they have saved."""
        if self._peers.share(self._signals.received) and self._how.run is not None:
            self._how.run.keep(self._standings, last=True)
        self._signals.look()

    def _past(self) -> Iterator[Rows]:
        """The rows of an earlier run, once more."""
        histories = [member.history for member in self.members]
        for i in range(max(map(len, histories))):
            yield tuple(history[i] if i < len(history) else None for history in histories)

    def _step(self, running: Sequence[bool]) -> Rows:
        begin = time.perf_counter()
        taken = self.group.advance(running)
        seconds = time.perf_counter() - begin
        # All members first, then the listeners: if one of these fails, all members stand at the same step.
        seen = [
            self._seen(member, one, seconds) if runs else (None, [])
            for member, one, runs in zip(self.members, taken, running, strict=True)
        ]
        for report, findings in seen:
            for finding in findings:
                self.audience.finding(finding)
            if report is not None:
                self.audience.step(report)
        rows = tuple(report for report, _ in seen)
        if self._how.run is not None:
            self._how.run.keep(self._standings, last=not any(self._running()))
        return rows

    def _seen(
        self, member: Watched, taken: Taken, seconds: float
    ) -> tuple[Report | None, list[Finding]]:
        state = functools.partial(self.group.state, member.number)
        step = 1 + len(member.history)
        report, findings = member.saw(self._how.method, taken, state, step=step, seconds=seconds)
        if report is None:
            return None, self._gone_back(member)
        if not member.converged(self._how.tolerance, state) and step == self.total:
            member.park(state)
        return report, findings

    def _gone_back(self, member: Watched) -> list[Finding]:
        """Takes a member that has failed back, if it is to be; what there is to say of it."""
        back = member.gone_back()
        if back is None:
            return []
        state, finding = back
        self.group.go_back(member.number, state, member.scale)
        return [finding]

    def _standings(self) -> tuple[Standing, ...]:
        return tuple(
            member.standing(functools.partial(self.group.state, member.number))
            for member in self.members
        )


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


def _check_tolerance(tolerance: float) -> None:
    is_number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not is_number or not 0 <= tolerance < math.inf:
        raise ValueError(
            f"tune got tolerance={tolerance!r}, but it must be a number of 0 or more, 0 to do all steps"
        )
