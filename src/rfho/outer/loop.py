"""Tuning: the outer loop with a clock, a history and an honest reason for its end."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import optax

from rfho import _tree as tree
from rfho.checks.diagnosis import Finding, Seen, Watch, warn
from rfho.errors import HyperGradientError, Result, positive_int
from rfho.hyper_gradients import AbstractHyperGradient, Estimate
from rfho.outer.progress import AbstractProgress, NoProgress
from rfho.outer.tuner import Tuner, TunerState
from rfho.problem.problem import Problem
from rfho.typing import Hyper, Params, PyTree


class Report(NamedTuple):
    """One outer step, on the host.

    Attributes:
        step: k = 1, 2, …
        hyper: λ_k, after the update and the projection.
        value: f at λ_{k-1}, the value that the step saw.
        hypergradient: the one that the step used.
        stats: the method's scalars, see its docstring.
        seconds: wall-clock seconds of this step; the first includes compilation.
    """

    step: int
    hyper: Hyper
    value: Any
    hypergradient: Hyper
    stats: dict[str, float]
    seconds: float


class Solution(NamedTuple):
    """Where a run ended.

    Attributes:
        hyper: the last λ.
        value: f(λ) there: from one more training run for batch methods, read from the run for
            online ones.
        params: the trained parameters that belong to it.
        history: all reports, in order.
        result: why the run stopped.
    """

    hyper: Hyper
    value: PyTree
    params: Params
    history: tuple[Report, ...]
    result: Result


def tune(
    problem: Problem,
    hyper: Hyper,
    *,
    method: AbstractHyperGradient | None = None,
    optim: optax.GradientTransformation | None = None,
    domain: PyTree = None,
    steps: int | None = None,
    tolerance: float = 0.0,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution:
    """Tunes ``hyper`` by gradient descent on f(λ) = E(w_T, λ).

    Args:
        problem: what is tuned.
        hyper: λ_0, a pytree of floating-point arrays or numbers, inside its domain.
        method: how hypergradients are computed; `ReverseHyperGradient` by default.
        optim: the outer optimiser; `optax.adam(0.01)` by default.
        domain: a domain, or a tree prefix of ``hyper`` with domains; no constraint by default.
        steps: outer steps; 100 by default, or as many as the one training run of an online method
            has.
        tolerance: stop when ‖λ_k - λ_{k-1}‖ <= tolerance · (1 + ‖λ_{k-1}‖).
        progress: `RichProgress()` for a bar; silent by default.
        throw: raise what goes wrong while running; otherwise return the last good λ with its
            `Result`.

    Returns:
        A `Solution`. Ctrl-C ends the run after the last whole step and returns what there is, with
        `Result.STOPPED`.

    Raises:
        TypeError, ValueError: the arguments do not fit each other; before anything runs.
        HyperGradientError: the objective, the hypergradient or a hyperparameter became non-finite, or
            the method itself says that its estimate is useless.

    Warns:
        HyperGradientWarning: the numbers of the run itself give rise to doubt, see `rfho.diagnose`;
            once for each kind.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: (w - 1) ** 2, train=None, valid=None, horizon=1
        ... )
        >>> solution = rfho.tune(problem, {"lr": 0.1}, optim=optax.sgd(0.1), steps=50)
        >>> round(float(solution.hyper["lr"]), 3), solution.result.name
        (0.5, 'STEPS_DONE')
    """
    tuner = Tuner(method, optim, domain)
    progress = NoProgress() if progress is None else progress
    history: list[Report] = []
    previous = state = tuner.init(problem, hyper)
    total = outer_steps(tuner.method, problem, steps)
    handle = progress.start(total)
    result = _end(tuner, problem, total)
    try:
        for report, after in _loop(tuner, problem, state, total=total):
            previous, state = state, after
            history.append(report)
            progress.advance(handle, report.step, f"f = {_shown(report.value)}")
            if tolerance > 0 and _moved(previous.hyper, state.hyper) <= tolerance:
                result = Result.CONVERGED
                break
    except HyperGradientError as error:
        if throw:
            raise
        result = error.result
        # The objective has a value at every λ but the last.
        state = previous if result is Result.NON_FINITE_VALUE else state
    except KeyboardInterrupt:
        result = Result.STOPPED
    finally:
        progress.close(handle)
    value, params = tuner.conclude(problem, state)
    return Solution(state.hyper, jax.device_get(value), params, tuple(history), result)


def iterate(
    problem: Problem,
    hyper: Hyper,
    *,
    method: AbstractHyperGradient | None = None,
    optim: optax.GradientTransformation | None = None,
    domain: PyTree = None,
    steps: int | None = None,
) -> Iterator[Report]:
    """The run of `tune` as a plain for-loop, one `Report` per outer step.

    Args, raises: as `tune`; the arguments are checked when the first report is asked for.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: (w - 1) ** 2, train=None, valid=None, horizon=1
        ... )
        >>> for report in rfho.iterate(problem, {"lr": 0.1}, steps=3):
        ...     last = report.step
        >>> last
        3
    """
    tuner = Tuner(method, optim, domain)
    state = tuner.init(problem, hyper)
    for report, _ in _loop(tuner, problem, state, total=outer_steps(tuner.method, problem, steps)):
        yield report


def _loop(
    tuner: Tuner, problem: Problem, state: TunerState, *, total: int
) -> Iterator[tuple[Report, TunerState]]:
    steps, watch = tuner.steps(problem, state), Watch()
    for step in range(1, total + 1):
        begin = time.perf_counter()
        state, estimate = next(steps)
        # To the host at once: device scalars kept in a list leak.
        value, gradient, stats = jax.device_get(
            (estimate.value, estimate.hypergradient, estimate.aux.stats)
        )
        hyper = jax.device_get(state.hyper)
        stats = {name: float(number) for name, number in stats.items()}
        symptoms, watch = watch.look(Seen(value, gradient, stats), estimate.aux.params, step)
        try:
            _complain(tuner.method, stats, step)
            _check_finite(estimate, value, gradient, hyper=hyper, step=step)
        except HyperGradientError as error:
            raise _with_notes(error, symptoms) from None
        warn(symptoms)
        seconds = time.perf_counter() - begin
        yield Report(step, hyper, _floats(value), gradient, stats, seconds), state


def _complain(method: AbstractHyperGradient, stats: dict[str, float], step: int) -> None:
    complaint = method.complaint(stats)
    if complaint is not None:
        raise HyperGradientError(complaint.result, f"at outer step {step} {complaint}")


def _with_notes(error: HyperGradientError, symptoms: list[Finding]) -> HyperGradientError:
    for symptom in symptoms:
        error.add_note(str(symptom))
    return error


def _check_finite(
    estimate: Estimate, value: PyTree, gradient: Hyper, *, hyper: Hyper, step: int
) -> None:
    at = f"at outer step {step}"
    bad = tree.first_non_finite(value, "objective")
    if bad is not None:
        where = tree.first_non_finite(jax.device_get(estimate.aux.params), "params")
        because = f"; {where} is not finite either, so training itself diverged" if where else ""
        raise HyperGradientError(
            Result.NON_FINITE_VALUE,
            f"{bad} is {value} {at}{because}: start from a smaller rate, shorten the horizon, or narrow "
            "the domain; rfho.diagnose says where it began",
        )
    bad = tree.first_non_finite(gradient, "hypergradient")
    if bad is not None:
        raise HyperGradientError(
            Result.NON_FINITE_HYPERGRADIENT,
            f"{bad} is not finite {at} though the objective is: a derivative is infinite (√ or a norm at 0, "
            "as in optax.adam where a gradient is exactly zero: use rfho.optim.adam) or the adjoint overflowed; "
            "rfho.diagnose names the step and the leaf",
        )
    bad = tree.first_non_finite(hyper, "hyper")
    if bad is not None:
        raise HyperGradientError(
            Result.NON_FINITE_HYPER,
            f"{bad} is not finite after the update {at}: the outer step is too large, or the chart overflowed",
        )


def outer_steps(method: AbstractHyperGradient, problem: Problem, steps: int | None) -> int:
    """How many outer steps there will be: ``steps``, 100 by default, or as many as the method can take.

    Raises:
        ValueError: ``steps`` is no int of 1 or more, or the method can take none.
    """
    if steps is not None:
        positive_int(steps, "steps", "tune")
    limit = method.limit(problem)
    if limit is None:
        return 100 if steps is None else steps
    if limit == 0:
        raise ValueError(
            f"{type(method).__name__} updates less often than the horizon of {problem.horizon} steps is "
            "long, so it would never update: lower every, or raise horizon"
        )
    return limit if steps is None else min(steps, limit)


def _end(tuner: Tuner, problem: Problem, total: int) -> Result:
    return Result.HORIZON_REACHED if tuner.method.limit(problem) == total else Result.STEPS_DONE


def _moved(before: Hyper, after: Hyper) -> float:
    """‖λ_k - λ_{k-1}‖ / (1 + ‖λ_{k-1}‖)."""
    before, after = tree.inexact(before), tree.inexact(after)
    return float(tree.norm(tree.subtract(after, before)) / (1 + tree.norm(before)))


def _floats(value: PyTree) -> PyTree:
    return jax.tree.map(float, value)


def _shown(value: PyTree) -> str:
    return ", ".join(f"{float(leaf):.4g}" for leaf in jax.tree.leaves(value))
