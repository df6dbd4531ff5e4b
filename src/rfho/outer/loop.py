"""The one outer loop, with an honest reason for its end."""

from collections.abc import Iterator, Sequence

from rfho.checks.diagnosis import HyperGradientWarning
from rfho.errors import HyperGradientError, Result
from rfho.outer.how import How
from rfho.outer.report import Solution
from rfho.outer.session import Rows, Session
from rfho.outer.signals import StopSignals
from rfho.problem.problem import Problem
from rfho.typing import Hyper


def tuned(
    problem: Problem, hypers: Sequence[Hyper], how: How, *, throw: bool
) -> tuple[Solution, ...]:
    """Tunes all of ``hypers`` and says where each of them ended; see `rfho.tune` and `rfho.tune_many`."""
    signals = StopSignals(how.hurry)
    with signals.watching():
        session = Session(problem, hypers, how, signals)
        solutions = session.solutions(*_closed(session, *_carried_out(session)))
    signals.leave()
    if throw:
        raise_first(solutions)
    return solutions


def _carried_out(session: Session) -> tuple[Result, Exception | None]:
    """Takes all steps, and says why they ended."""
    try:
        for _ in session.reports():
            pass
    except KeyboardInterrupt:
        return Result.STOPPED, None
    except HyperGradientWarning:  # which the user has made an error
        session.audience.close(Result.FAILED)
        raise
    except Exception as raised:
        if is_interrupt(raised):
            return Result.STOPPED, None
        if isinstance(raised, TypeError | ValueError) and not session.members[0].history:
            session.audience.close(Result.FAILED)
            raise
        return _result_of(raised), raised
    return session.planned, None


def _result_of(raised: Exception) -> Result:
    return raised.result if isinstance(raised, HyperGradientError) else Result.FAILED


def _closed(
    session: Session, result: Result, error: Exception | None
) -> tuple[Result, Exception | None]:
    """Tells all listeners that the run has ended; what then goes wrong is no reason to lose it."""
    try:
        session.audience.close(session.members[0].ended or result)
    except Exception as raised:
        return (Result.FAILED, raised) if error is None else (result, error)
    return result, error


def reported(problem: Problem, hypers: Sequence[Hyper], how: How, *, throw: bool) -> Iterator[Rows]:
    """The same as a loop: one row of reports for each outer step; see `rfho.iterate`."""
    signals = StopSignals(how.hurry)
    with signals.watching():
        session = Session(problem, hypers, how, signals)
    result, steps = Result.STOPPED, session.reports()
    try:
        while True:
            # Between two reports it is the caller who is interrupted.
            with signals.watching():
                rows = next(steps, None)
            if rows is None:
                break
            if throw and session.has_failed:
                raise_first(session.solutions(result))
            yield rows
        result = session.planned
        signals.look()
    except KeyboardInterrupt:
        signals.leave()
        raise
    except Exception as raised:
        result = _result_of(raised)
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
