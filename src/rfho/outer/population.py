r"""Many outer loops side by side: several starts, or several domains, tuned by one compiled program.

.. math:: \lambda^i_k = P_i\bigl(\lambda^i_{k-1} + \mathrm{update}(\nabla f(\lambda^i_{k-1}))\bigr),
          \qquad i = 1, \dots, n

Every member has hyperparameters, slots and a carry of its own; problem and data are shared. It is
`jax.vmap` of the outer step of `Tuner`: a matrix product with the data is done once for all
members, which on data that are larger than the model is much cheaper than one run after another.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from rfho import _tree as tree
from rfho.errors import Result
from rfho.hyper_gradients import AbstractHyperGradient, Estimate
from rfho.outer.loop import Report, Solution, outer_steps
from rfho.outer.progress import AbstractProgress, NoProgress
from rfho.outer.tuner import Tuner, TunerState
from rfho.problem.problem import Problem
from rfho.typing import Hyper, Params, PyTree


def tune_many(
    problem: Problem,
    hypers: Sequence[Hyper],
    *,
    method: AbstractHyperGradient | None = None,
    optim: optax.GradientTransformation | None = None,
    domain: PyTree = None,
    domains: Sequence[PyTree] | None = None,
    steps: int | None = None,
    progress: AbstractProgress | None = None,
) -> tuple[Solution, ...]:
    """Tunes several starts at once: `tune` for each of ``hypers``, side by side.

    A member whose objective, hypergradient or hyperparameters stop being finite ends there, with
    its last good λ; the others go on.

    Args:
        problem: what is tuned, the same for all members.
        hypers: λ_0 of each member, all of one structure, shape and dtype.
        method: how hypergradients are computed; `ReverseHyperGradient` by default.
        optim: the outer optimiser; `optax.adam(0.01)` by default.
        domain: a domain, or a tree prefix of ``hyper``, for all members.
        domains: one such tree for each member instead: the same kinds of domain, with bounds or
            radii of their own.
        steps: outer steps; 100 by default, or as many as the training run of an online method has.
        progress: `RichProgress()` for a bar; silent by default.

    Returns:
        One `Solution` for each member. Ctrl-C ends the run after the last whole step and returns
        what there is, with `Result.STOPPED`.

    Raises:
        TypeError, ValueError: the arguments do not fit each other; before anything runs.

    Cost:
        Memory of n single runs; less than n times the time of one.

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
        >>> solutions = rfho.tune_many(
        ...     problem, [{"lr": 0.1}, {"lr": 0.8}], optim=optax.sgd(0.1), steps=50
        ... )
        >>> [round(float(solution.hyper["lr"]), 3) for solution in solutions]
        [0.5, 0.5]
    """
    chosen = _chosen(method, optim, domain=domain, domains=domains, count=len(hypers))
    states = _start(problem, hypers, chosen)
    total = outer_steps(chosen.method, problem, steps)
    progress = NoProgress() if progress is None else progress
    runs = [_Run(tree.as_hyper(hyper), [], None) for hyper in hypers]
    end = Result.HORIZON_REACHED if chosen.method.limit(problem) == total else Result.STEPS_DONE
    handle = progress.start(total)
    try:
        for reports, after in _loop(problem, chosen, states, total=total):
            states = after
            runs = [_after(run, report) for run, report in zip(runs, reports, strict=True)]
            progress.advance(handle, reports[0].step, f"f = {_shown(runs)}")
            if all(run.failure for run in runs):
                break
    except KeyboardInterrupt:
        end = Result.STOPPED
    finally:
        progress.close(handle)
    values, params = _conclude(problem, chosen, states)
    values = jax.device_get(values)
    return tuple(
        Solution(
            run.hyper,
            _member(values, i),
            _member(params, i),
            tuple(run.history),
            run.failure or end,
        )
        for i, run in enumerate(runs)
    )


def iterate_many(
    problem: Problem,
    hypers: Sequence[Hyper],
    *,
    method: AbstractHyperGradient | None = None,
    optim: optax.GradientTransformation | None = None,
    domain: PyTree = None,
    domains: Sequence[PyTree] | None = None,
    steps: int | None = None,
) -> Iterator[tuple[Report, ...]]:
    """The run of `tune_many` as a plain for-loop: one `Report` for each member at every outer step.

    The reports of a member that has diverged hold what it computes, NaN and infinities included.
    ``seconds`` is the time of the whole step, the same for all members.

    Args, raises: as `tune_many`; the arguments are checked when the first reports are asked for.

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
        >>> for reports in rfho.iterate_many(problem, [{"lr": 0.1}, {"lr": 0.8}], steps=3):
        ...     last = [report.step for report in reports]
        >>> last
        [3, 3]
    """
    chosen = _chosen(method, optim, domain=domain, domains=domains, count=len(hypers))
    start = _start(problem, hypers, chosen)
    total = outer_steps(chosen.method, problem, steps)
    for reports, _ in _loop(problem, chosen, start, total=total):
        yield reports


class _Chosen(eqx.Module):
    """How all members are tuned; ``domains`` has a leading axis of members on every leaf."""

    method: AbstractHyperGradient
    optim: optax.GradientTransformation
    domains: PyTree

    def tuner(self, domain: PyTree) -> Tuner:
        """The outer loop of the member with that domain."""
        return Tuner(self.method, self.optim, domain)


class _Run(NamedTuple):
    """One member's run so far."""

    hyper: Hyper
    history: list[Report]
    failure: Result | None


def _chosen(
    method: AbstractHyperGradient | None,
    optim: optax.GradientTransformation | None,
    *,
    domain: PyTree,
    domains: Sequence[PyTree] | None,
    count: int,
) -> _Chosen:
    if count == 0:
        raise ValueError("hypers is empty, but there must be at least one start")
    if domains is not None and domain is not None:
        raise ValueError("got both domain and domains: give one for all members, or one for each")
    if domains is not None and len(domains) != count:
        raise ValueError(f"got {len(domains)} domains for {count} starts: give one for each")
    one = Tuner(method, optim, domain)
    each = [one.domain] * count if domains is None else domains
    return _Chosen(one.method, one.optim, _stacked(each, "domains"))


def _start(problem: Problem, hypers: Sequence[Hyper], chosen: _Chosen) -> TunerState:
    """Every member checked on its own, and their states stacked."""
    states = [
        chosen.tuner(_member(chosen.domains, i)).init(problem, hyper)
        for i, hyper in enumerate(hypers)
    ]
    return _stacked(states, "hypers")


def _loop(
    problem: Problem, chosen: _Chosen, states: TunerState, *, total: int
) -> Iterator[tuple[tuple[Report, ...], TunerState]]:
    for step in range(1, total + 1):
        begin = time.perf_counter()
        after, estimates = _step(problem, chosen, states)
        # To the host at once: device scalars kept in a list leak.
        seen = jax.device_get(
            (after.hyper, estimates.value, estimates.hypergradient, estimates.aux.stats)
        )
        seconds = time.perf_counter() - begin
        count = after.step.shape[0]
        reports = tuple(_report(step, _member(seen, i), seconds) for i in range(count))
        alive = jnp.asarray([_failure(report) is None for report in reports])
        states = _where(alive, after, states)
        yield reports, states


@eqx.filter_jit
def _step(problem: Problem, chosen: _Chosen, states: TunerState) -> tuple[TunerState, Estimate]:
    def one(domain: PyTree, state: TunerState) -> tuple[TunerState, Estimate]:
        return chosen.tuner(domain).step(problem, state)

    return jax.vmap(one)(chosen.domains, states)


@eqx.filter_jit
def _conclude(problem: Problem, chosen: _Chosen, states: TunerState) -> tuple[PyTree, Params]:
    def one(domain: PyTree, state: TunerState) -> tuple[PyTree, Params]:
        return chosen.tuner(domain).conclude(problem, state)

    return jax.vmap(one)(chosen.domains, states)


@jax.jit
def _where(alive: Array, after: TunerState, before: TunerState) -> TunerState:
    """A member that failed stays where it was."""

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(pick, after, before)


def _report(step: int, seen: tuple[Hyper, PyTree, Hyper, dict[str, Any]], seconds: float) -> Report:
    hyper, value, hypergradient, stats = seen
    numbers = {name: float(number) for name, number in stats.items()}
    return Report(step, hyper, jax.tree.map(float, value), hypergradient, numbers, seconds)


def _after(run: _Run, report: Report) -> _Run:
    failure = run.failure or _failure(report)
    return (
        run._replace(failure=failure)
        if failure
        else _Run(report.hyper, [*run.history, report], None)
    )


def _failure(report: Report) -> Result | None:
    for name, value, failure in (
        ("objective", report.value, Result.NON_FINITE_VALUE),
        ("hypergradient", report.hypergradient, Result.NON_FINITE_HYPERGRADIENT),
        ("hyper", report.hyper, Result.NON_FINITE_HYPER),
    ):
        if tree.first_non_finite(value, name) is not None:
            return failure
    return None


def _stacked(members: Sequence[PyTree], name: str) -> PyTree:
    """Trees of one structure as one, with a leading axis of members on every leaf."""
    first = members[0]
    for i, member in enumerate(members):
        if _layout(member) != _layout(first):
            raise ValueError(
                f"{name}[{i}] differs from {name}[0] in structure, shape or dtype, but members run side by "
                "side: give all of them one structure, or tune them one after another"
            )
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *members)


def _layout(member: PyTree) -> tuple[PyTree, list[tuple[tuple[int, ...], str]]]:
    leaves, structure = jax.tree.flatten(member)
    return structure, [(jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves]


def _member(stacked: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _shown(runs: Sequence[_Run]) -> str:
    """The best objective of a member that still runs."""
    values = [run.history[-1].value for run in runs if run.history and not run.failure]
    leaves = [jax.tree.leaves(value) for value in values]
    best = min(leaves, key=sum, default=[])
    return ", ".join(f"{leaf:.4g}" for leaf in best)
