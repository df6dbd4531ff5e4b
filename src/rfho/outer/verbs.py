"""The verbs: tune, iterate, and both for many starts at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import optax

from rfho.domains import Reals
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.optim.certain import certain
from rfho.outer.events import AbstractRun, Listener
from rfho.outer.group import alike
from rfho.outer.how import How
from rfho.outer.loop import reported, tuned
from rfho.outer.report import Report, Solution
from rfho.outer.retry import Retry
from rfho.outer.session import Rows
from rfho.outer.tuner import ADAM, REVERSE
from rfho.placement import Members
from rfho.problem.problem import Problem
from rfho.typing import Hyper, PyTree


def tune(
    problem: Problem,
    hyper: Hyper,
    *,
    method: AbstractHyperGradient = REVERSE,
    optim: optax.GradientTransformation = ADAM,
    domain: PyTree = Reals(),
    steps: int | None = None,
    tolerance: float = 0.0,
    trust: float | None = None,
    choose: Any = None,
    listeners: Sequence[Listener] = (),
    run: AbstractRun | None = None,
    retry: Retry | None = None,
    throw: bool = True,
) -> Solution:
    """Tunes ``hyper`` by gradient descent on f(λ) = E(w_T, λ).

    Args:
        problem: what is tuned.
        hyper: λ_0, a pytree inside its domain. Its floating-point arrays and numbers are learned; ints, words,
            functions and `Fixed` leaves reach the problem's functions as they are.
        method: how hypergradients are computed.
        optim: the outer optimiser; `optax.adam(0.01)` by default.
        domain: a domain, or a tree prefix of ``hyper`` with domains.
        steps: outer steps; 100 by default, or as many as the one training run of an online method
            has.
        tolerance: stop when ‖λ_k - λ_{k-1}‖ <= tolerance · (1 + ‖λ_{k-1}‖).
        trust: move a coordinate only where the hypergradient is larger than so many of its errors, as the method
            states them (`rfho.optim.certain`); None to move all.
        choose: data of the kind of the problem's ``valid`` that nobody descends: ``best`` is then the step whose
            trained parameters have the lowest objective on them, which each report has among its ``stats`` as
            ``held_out``; a warning says when the objective falls and that rises. None to go by the objective itself.
        listeners: who is told of every step, as ``[rfho.RichProgress()]``; see `rfho.Listener`.
        run: what keeps the outer state on disk, to go on from there after an interruption.
        retry: when to go back and take smaller outer steps after a failure of the numbers; None for never.
        throw: raise what goes wrong while running; otherwise return the last good λ with its `Result`.

    Returns:
        A `Solution`. Ctrl-C ends the run after the last whole step and returns what there is, with
        `Result.STOPPED`.

    Raises:
        TypeError, ValueError: the arguments do not fit each other; before anything runs.
        HyperGradientError: the objective, the hypergradient or a hyperparameter became non-finite, or
            the method itself says that its estimate is useless.
        Exception: a function of the problem failed on the host. Whatever is raised once the run goes on has
            the `Solution` so far as its ``solution``.

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
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> solution = rfho.tune(problem, {"lr": 0.1}, optim=optax.sgd(0.02), steps=50)
        >>> round(float(solution.hyper["lr"]), 3), solution.result.name
        (0.5, 'STEPS_DONE')
    """
    how = How(
        method, _trusted(optim, trust), (domain,), steps, tolerance, choose, listeners, run, retry
    )
    (solution,) = tuned(problem, (hyper,), how, throw=throw)
    return solution


def iterate(
    problem: Problem,
    hyper: Hyper,
    *,
    method: AbstractHyperGradient = REVERSE,
    optim: optax.GradientTransformation = ADAM,
    domain: PyTree = Reals(),
    steps: int | None = None,
    tolerance: float = 0.0,
    trust: float | None = None,
    choose: Any = None,
    listeners: Sequence[Listener] = (),
    run: AbstractRun | None = None,
    retry: Retry | None = None,
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
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> for report in rfho.iterate(problem, {"lr": 0.1}, steps=3):
        ...     last = report.step
        >>> last
        3
    """
    how = How(
        method, _trusted(optim, trust), (domain,), steps, tolerance, choose, listeners, run, retry
    )
    for (report,) in reported(problem, (hyper,), how, throw=True):
        if report is not None:
            yield report


def tune_many(
    problem: Problem,
    hypers: Sequence[Hyper],
    *,
    method: AbstractHyperGradient = REVERSE,
    optim: optax.GradientTransformation = ADAM,
    domain: PyTree = None,
    domains: Sequence[PyTree] | None = None,
    steps: int | None = None,
    tolerance: float = 0.0,
    trust: float | None = None,
    choose: Any = None,
    listeners: Sequence[Listener] = (),
    run: AbstractRun | None = None,
    retry: Retry | None = None,
    placement: Members | None = None,
    throw: bool = False,
) -> tuple[Solution, ...]:
    """Tunes several starts at once: `tune` for each of ``hypers``, side by side in one compiled program.

    A member that fails or converges ends there, with its last good λ; the others go on.

    Args:
        problem: what is tuned, the same for all members.
        hypers: λ_0 of each member, all of one structure, shape and dtype.
        method: as in `tune`.
        optim: as in `tune`.
        domain: a domain, or a tree prefix of ``hyper``, for all members; `Reals` by default.
        domains: one such tree for each member instead: the same kinds of domain, with bounds or
            radii of their own.
        steps: as in `tune`.
        tolerance: as in `tune`, for each member.
        trust: as in `tune`.
        choose: as in `tune`, the same for all members.
        listeners: as in `tune`; a report says whose it is.
        run: as in `tune`.
        retry: as in `tune`, for each member.
        placement: how the members lie over devices, as `rfho.placement.Members` says; None for one device.
        throw: raise the first failure once all members have ended; by default each solution says its own.

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
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> solutions = rfho.tune_many(
        ...     problem, [{"lr": 0.1}, {"lr": 0.8}], optim=optax.sgd(0.02), steps=50
        ... )
        >>> [round(float(solution.hyper["lr"]), 3) for solution in solutions]
        [0.5, 0.5]
    """
    each = _each(domain, domains, len(hypers))
    outer = _trusted(optim, trust)
    how = How(method, outer, each, steps, tolerance, choose, listeners, run, retry, placement)
    return tuned(problem, alike(hypers), how, throw=throw)


def iterate_many(
    problem: Problem,
    hypers: Sequence[Hyper],
    *,
    method: AbstractHyperGradient = REVERSE,
    optim: optax.GradientTransformation = ADAM,
    domain: PyTree = None,
    domains: Sequence[PyTree] | None = None,
    steps: int | None = None,
    tolerance: float = 0.0,
    trust: float | None = None,
    choose: Any = None,
    listeners: Sequence[Listener] = (),
    run: AbstractRun | None = None,
    retry: Retry | None = None,
    placement: Members | None = None,
) -> Iterator[Rows]:
    """The run of `tune_many` as a plain for-loop: one `Report` for each member at every outer step.

    A member that has ended, or has just gone back, has None in place of a report. ``seconds`` is the time of the
    whole step.

    Args, raises: as `tune_many`; the arguments are checked when the first reports are asked for.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> for reports in rfho.iterate_many(problem, [{"lr": 0.1}, {"lr": 0.8}], steps=3):
        ...     last = [report.step for report in reports]
        >>> last
        [3, 3]
    """
    each = _each(domain, domains, len(hypers))
    outer = _trusted(optim, trust)
    how = How(method, outer, each, steps, tolerance, choose, listeners, run, retry, placement)
    yield from reported(problem, alike(hypers), how, throw=False)


def _trusted(
    optim: optax.GradientTransformation, trust: float | None
) -> optax.GradientTransformation:
    return optim if trust is None else certain(optim, trust)


def _each(domain: PyTree, domains: Sequence[PyTree] | None, count: int) -> tuple[PyTree, ...]:
    """One domain for each member."""
    if count == 0:
        raise ValueError("hypers is empty, but there must be at least one start")
    if domains is None:
        return (Reals() if domain is None else domain,) * count
    if domain is not None:
        raise ValueError("got both domain and domains: give one for all members, or one for each")
    if len(domains) != count:
        raise ValueError(f"got {len(domains)} domains for {count} starts: give one for each")
    return tuple(domains)
