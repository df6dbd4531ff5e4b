"""One member of a run, as it is watched: its history, its best step, and why it ended."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs import trees as tree
from rfho.checks.diagnosis import Finding, Kind, Seen, Watch, Where, move_findings
from rfho.checks.diagnosis.symptoms import HELD_OUT, REMEMBERED
from rfho.errors import HyperGradientError, Result
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.hyper_gradients.once import not_finite
from rfho.memory.shards import on_device, to_host
from rfho.outer.chooser import Chooser
from rfho.outer.events import Standing
from rfho.outer.group import Taken
from rfho.outer.history import History
from rfho.outer.report import Best, Report
from rfho.outer.retry import Retry
from rfho.outer.tuner import TunerState
from rfho.problem.problem import Problem
from rfho.typing import Hyper, Params, PyTree


class Watched:
    """What is known of one member so far.

    Attributes:
        number: which member it is.
        hyper: the last good λ, on the host.
        history: its reports.
        best: the lowest objective so far; None before the first step.
        ended: why it ended; None while it runs.
        error: what was raised about it.
        end: the state in which it ended, and the one that it could go back to; None while it runs.
        retries: how often it has gone back.
        scale: what its outer steps are multiplied with.
    """

    def __init__(
        self,
        number: int,
        standing: Standing,
        start: TunerState,
        *,
        retry: Retry | None,
        judging: Problem | None,
    ) -> None:
        self.number = number
        past = standing.history
        self.history = past if isinstance(past, History) else History(past)
        self.best = standing.best
        self.ended = standing.ended
        self.error = _error_of(standing)
        self.end = None if standing.ended is None else (standing.state, standing.before)
        self.retries, self.scale = standing.retries, standing.scale
        self._retry, self._failed, self._safe = retry, standing.failed, standing.safe
        self._rest = standing.state.rest
        self.hyper: Hyper = to_host(standing.state.hyper)
        self._hyper_before: Hyper = to_host(standing.before.hyper)
        self._space = standing.state.space
        self._start, self._free = to_host((start.free, standing.state.free))
        self._choose = None if judging is None else Chooser(judging, self._rest)
        self._watch = Watch(_remembered(standing.history), standing.told)

    def standing(self, state: Callable[[int], TunerState]) -> Standing:
        """All that there is to know of it; ``state(i)`` is where its group has it i steps back.

        A step that its group has taken but that has not been looked at, as something was raised in between,
        does not count.
        """
        if self.end is None:
            ahead = int(state(0).step) - len(self.history)
            last, before = state(ahead), state(ahead + 1)
        else:
            last, before = self.end
        reason = "" if self.error is None else str(self.error)
        told = self._watch.told
        return Standing(
            state=last,
            before=before,
            history=self.history,
            best=self.best,
            told=told,
            ended=self.ended,
            reason=reason,
            retries=self.retries,
            scale=self.scale,
            failed=self._failed,
            safe=self._safe,
        )

    def saw(
        self,
        method: AbstractHyperGradient,
        taken: Taken,
        state: Callable[[int], TunerState],
        *,
        step: int,
        seconds: float,
    ) -> tuple[Report | None, list[Finding]]:
        """The report of a step, and what gives rise to doubt; no report if the step failed.

        Args:
            method: which it was.
            taken: the step.
            state: where its group has this member so many steps back.
            step: its number.
            seconds: how long it took.
        """
        stats = {name: float(number) for name, number in taken.stats.items()}
        if self._choose is not None:
            stats[HELD_OUT] = self._choose(taken.params(), self._free, step - 1)
        seen = Seen(taken.value, taken.hypergradient, stats)
        params = taken.params() if step == 1 else None
        moves = move_findings(self._space, self._start, self._free, after=taken.free, k=step)
        findings, self._watch = self._watch.look(seen, params, step, moves)
        hyper = to_host(self._rest.join(taken.free))
        error = _complaint(method, stats, step) or _failure(taken, hyper, step)
        if error is not None:
            self._fail(error, findings, state)
            return None, []
        value = jax.tree.map(float, taken.value)
        by = stats.get(HELD_OUT, value)
        if self._is_lowest(by):
            # The value of a step belongs to the λ before it.
            self.best = Best(step - 1, self.hyper, by, taken.params())
            self._safe = None if self._retry is None else state(1)
        self._hyper_before, self.hyper, self._free = self.hyper, hyper, taken.free
        report = Report(
            step,
            hyper,
            value,
            taken.hypergradient,
            stats,
            seconds,
            member=self.number,
            retries=self.retries,
        )
        self.history.append(report)
        return report, findings

    def converged(self, tolerance: float, state: Callable[[int], TunerState]) -> bool:
        """Whether the last step was shorter than ``tolerance``; the member ends then."""
        if not tolerance > 0 or not _moved(self._hyper_before, self.hyper) <= tolerance:
            return False
        self.ended = Result.CONVERGED
        self.park(state)
        return True

    def park(self, state: Callable[[int], TunerState]) -> None:
        """It stays where it is, while others go on."""
        self.end = state(0), state(1)

    def gone_back(self) -> tuple[TunerState, Finding] | None:
        """Where it has failed and may be retried, it stands at an earlier state again: which, and what to say."""
        if self._retry is None or self.error is None or self.end is None:
            return None
        failed, target = len(self.history) + 1, self._target(self.end[1])
        if self.retries >= self._retry.times or target is None:
            if self.retries:
                self.error.add_note(
                    f"retried {self.retries} times, last with outer steps of {self.scale:.3g} of their size"
                )
            return None
        self.retries, self.scale = self.retries + 1, self.scale * self._retry.shrink
        message = (
            f"{self.error}. So outer step {int(target.step) + 1} is taken again, and all from there on are "
            f"{self.scale:.3g} of their size (retry {self.retries} of {self._retry.times})"
        )
        self._failed = failed
        self._stand(target)
        return target, Finding(Kind.TAKEN_BACK, Where(step=failed), message)

    def _target(self, near: TunerState) -> TunerState | None:
        """Where to go back to: before the update that led to the failure, or, if that did not help, to the best."""
        failed = len(self.history) + 1
        # The estimate at the very λ that failed would fail again.
        helps = self.ended is Result.NON_FINITE_HYPER or int(near.step) < failed - 1
        if (not helps or failed <= self._failed) and self._safe is not None:
            return min(self._safe, near, key=lambda state: int(state.step))
        return near if helps else None

    def _stand(self, state: TunerState) -> None:
        """Forgets what came after a state."""
        self.ended = self.error = self.end = None
        self.history.cut(int(state.step))
        self.hyper = self._hyper_before = to_host(state.hyper)
        self._free = to_host(state.free)
        self._watch = Watch(_remembered(self.history), self._watch.told)

    def consider_end(self, value: PyTree, params: Params) -> None:
        """The objective at the last λ, once it is known, may be the lowest."""
        if self._choose is not None:
            value = self._choose(params, self._free, len(self.history))
        if self._is_lowest(value):
            self.best = Best(len(self.history), self.hyper, value, params)

    def _is_lowest(self, value: PyTree) -> bool:
        return self.best is None or _size(value) < _size(self.best.value)

    def _fail(
        self,
        error: HyperGradientError,
        findings: list[Finding],
        state: Callable[[int], TunerState],
    ) -> None:
        for finding in findings:
            error.add_note(str(finding))
        self.error, self.ended = error, error.result
        steps_back = 1
        if error.result is Result.NON_FINITE_VALUE and self.history:
            # The objective has a value at every λ but the last.
            steps_back, self.hyper = 2, self._hyper_before
        failed_after = 1 if error.result is Result.NON_FINITE_HYPER else 2
        self.end = state(steps_back), state(failed_after)


def _error_of(standing: Standing) -> HyperGradientError | None:
    failed = standing.ended is not None and standing.ended.failed
    return (
        HyperGradientError(standing.ended, standing.reason) if failed and standing.ended else None
    )


def _remembered(history: Sequence[Report]) -> tuple[Seen, ...]:
    return tuple(
        Seen(report.value, report.hypergradient, report.stats) for report in history[-REMEMBERED:]
    )


def _size(value: PyTree) -> float:
    return sum(map(float, jax.tree.leaves(value)))


def _moved(before: Hyper, after: Hyper) -> float:
    """‖λ_k - λ_{k-1}‖ / (1 + ‖λ_{k-1}‖)."""
    old, new = map(_numbers, on_device((before, after)))
    steps = [b - a for a, b in zip(old, new, strict=True)]
    return _length(steps) / (1 + _length(old))


def _length(leaves: list[Any]) -> float:
    """The Euclidean norm, on the host unless they lie over several processes; no square overflows."""
    largest = max((float(abs(leaf).max()) for leaf in leaves if leaf.size), default=0.0)
    if not 0 < largest < math.inf:
        return largest
    return largest * float(sum(((leaf / largest) ** 2).sum() for leaf in leaves)) ** 0.5


def _numbers(hyper: Hyper) -> list[Any]:
    floats = [leaf for leaf in jax.tree.leaves(hyper) if hasattr(leaf, "dtype")]
    floats = [leaf for leaf in floats if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return [
        leaf if isinstance(leaf, jax.Array) else np.asarray(leaf, np.float64) for leaf in floats
    ]


def _complaint(
    method: AbstractHyperGradient, stats: dict[str, float], step: int
) -> HyperGradientError | None:
    complaint = method.complaint(stats)
    if complaint is None:
        return None
    return HyperGradientError(complaint.result, f"at outer step {step} {complaint}")


def _failure(taken: Taken, hyper: Hyper, step: int) -> HyperGradientError | None:
    if taken.finite:
        return None
    at = f"at outer step {step}"
    error = not_finite(taken.value, taken.hypergradient, taken.params(), at=at)
    if error is not None:
        return error
    bad = tree.first_non_finite(hyper, "hyper")
    return HyperGradientError(
        Result.NON_FINITE_HYPER,
        f"{bad} is not finite after the update {at}: the outer step is too large, or the chart overflowed",
    )
