"""Optuna outside, hypergradients inside: discrete choices by trials, continuous ones refined in each trial."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

import rfho
from rfho import domains
from rfho.adapters.equal_functions import with_first_functions
from rfho.domains import AbstractDomain
from rfho.errors import needed
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.outer import Report
from rfho.typing import Hyper, PyTree

_DEFAULT: rfho.Tuner = rfho.Tuner()
_MOST_ENTRIES = 1000
_LOGARITHMIC = 10.0


def refine(
    trial: Any,
    problem: rfho.Problem,
    hyper: Hyper,
    *,
    method: AbstractHyperGradient = _DEFAULT.method,
    optim: optax.GradientTransformation = _DEFAULT.optim,
    domain: PyTree = rfho.Reals(),
    steps: int | None = None,
    tolerance: float = 0.0,
    listeners: Sequence[rfho.Listener] = (),
    retry: rfho.Retry | None = None,
) -> rfho.Solution:
    """Tunes ``hyper`` by `rfho.tune` inside a trial of Optuna.

    Every outer step is reported to the trial, which may be pruned there; one that ``retry`` takes again is not
    reported again, as Optuna keeps the first value of a step. A run that fails (a NaN, a rate at which training
    diverges) prunes its trial, and the study goes on; an error in a function of yours fails it as usual. Trials
    whose problems are equal share their compiled programs, also if each trial builds its problem anew: functions
    of the same code count as one.

    The trial gets user attributes: ``result``, ``objective`` (the lowest), the hyperparameters that have it as
    ``hyper/…``, ``steps`` and ``seconds``.

    Args:
        trial: an `optuna.Trial` of a study that minimises; of one with several objectives nothing is
            reported, as Optuna prunes none of its trials. Refine once in each trial.
        problem: what is tuned.
        hyper: λ_0.
        method: as in `rfho.tune`.
        optim: as in `rfho.tune`.
        domain: as in `rfho.tune`.
        steps: as in `rfho.tune`.
        tolerance: as in `rfho.tune`.
        listeners: as in `rfho.tune`.
        retry: as in `rfho.tune`.

    Returns:
        The `rfho.Solution`; return ``solution.best.value`` to the study.

    Raises:
        optuna.TrialPruned: the pruner says so, or the run failed; ``error.solution`` has what was found.
        ValueError: the study maximises.
        KeyboardInterrupt: Ctrl-C, so that the study ends too.

    Example:
        >>> import jax.numpy as jnp, optax, optuna, rfho
        >>> from rfho.adapters.optuna import refine
        >>> def objective(trial):
        ...     power = trial.suggest_categorical("power", [2, 4])
        ...     loss = lambda w, hyper, batch: (w - 1) ** power
        ...     dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
        ...     problem = rfho.Problem(dynamics, loss, horizon=3)
        ...     return refine(trial, problem, {"lr": 0.1}, steps=5).best.value
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study()
        >>> study.optimize(objective, n_trials=3)
        >>> "hyper/lr" in study.best_trial.user_attrs
        True
    """
    optuna = needed("optuna", by="refine", extra="optuna")
    problem, hyper, method, optim, domain = with_first_functions(
        (problem, hyper, method, optim, domain)
    )
    pruner = _Pruner(trial)
    solution = rfho.tune(
        problem,
        hyper,
        method=method,
        optim=optim,
        domain=domain,
        steps=steps,
        tolerance=tolerance,
        listeners=(*listeners, pruner),
        retry=retry,
        throw=False,
    )
    _note(trial, solution)
    if pruner.pruned:
        message = f"pruned at outer step {solution.history[-1].step}"
        raise _with_solution(optuna.TrialPruned(message), solution)
    if solution.result is rfho.Result.STOPPED:
        raise _with_solution(KeyboardInterrupt(), solution)
    if isinstance(solution.error, rfho.HyperGradientError):
        pruned = optuna.TrialPruned(f"{solution.result.name}: {solution.error}")
        raise _with_solution(pruned, solution) from solution.error
    if solution.error is not None:
        raise _with_solution(solution.error, solution)
    return solution


def suggest(trial: Any, hyper: Hyper, domain: PyTree) -> Hyper:
    """``hyper`` with values that the trial suggests: starts for `refine`.

    A leaf between two bounds (`Box`, `LogBox`, `UnitInterval`) is drawn between them, each entry of an array by
    itself; on a logarithmic scale where both bounds are positive and differ by a factor of ten or more. `Fixed`
    leaves, and entries that are no floating-point numbers, stay as they are.

    Args:
        trial: an `optuna.Trial`; a parameter's name is the path of its leaf.
        hyper: the structure, shapes and dtypes.
        domain: as in `rfho.tune`.

    Raises:
        ValueError: a domain has no finite bounds for each entry.

    Example:
        >>> import optuna, rfho
        >>> from rfho.adapters.optuna import suggest
        >>> domain = {"lr": rfho.Box(1e-3, 1.0), "beta": rfho.Fixed()}
        >>> trial = optuna.trial.FixedTrial({"lr": 0.2})
        >>> suggest(trial, {"lr": 0.1, "beta": 0.9}, domain)
        {'beta': 0.9, 'lr': 0.2}
    """
    is_domain = lambda node: isinstance(node, AbstractDomain)  # noqa: E731
    each = jax.tree.leaves(domains.domain_tree(domain, hyper), is_leaf=is_domain)
    leaves, structure = jax.tree_util.tree_flatten_with_path(hyper)
    suggested = [
        _suggested(trial, path, leaf, domain)
        for (path, leaf), domain in zip(leaves, each, strict=True)
    ]
    return jax.tree.unflatten(structure, suggested)


class _Pruned(KeyboardInterrupt):
    """Stops a run from one of its listeners, as Ctrl-C does."""


class _Pruner(rfho.Listener):
    """Reports each outer step to a trial, and stops the run when the trial is to be pruned."""

    vital = True

    def __init__(self, trial: Any) -> None:
        self.pruned = False
        self._trial, self._last = trial, 0
        self._hears = True
        directions = trial.study.directions if hasattr(trial, "study") else ()
        if len(directions) > 1:
            self._hears = False
        elif any(direction.name == "MAXIMIZE" for direction in directions):
            raise ValueError(
                "refine makes its objective small, but the study maximises: write "
                "optuna.create_study(direction='minimize')"
            )

    def step(self, report: Report) -> None:
        """One intermediate value; the sum of several objectives. Of a step that is taken again the first stands."""
        if not self._hears or report.step <= self._last:
            return
        self._last = report.step
        self._trial.report(sum(map(float, jax.tree.leaves(report.value))), report.step)
        if self._trial.should_prune():
            self.pruned = True
            raise _Pruned


def _with_solution(error: BaseException, solution: rfho.Solution) -> BaseException:
    error.solution = solution  # type: ignore[attr-defined]
    return error


def _note(trial: Any, solution: rfho.Solution) -> None:
    trial.set_user_attr("result", f"{solution.result.name}: {solution.result.value}")
    trial.set_user_attr("steps", len(solution.history))
    trial.set_user_attr("seconds", sum(report.seconds for report in solution.history))
    if solution.best is None:
        return
    trial.set_user_attr("objective", sum(map(float, jax.tree.leaves(solution.best.value))))
    for path, leaf in jax.tree_util.tree_leaves_with_path(solution.best.hyper):
        trial.set_user_attr(_name(path, "hyper"), _plain(leaf))


def _plain(leaf: Any) -> Any:
    """A leaf as JSON."""
    if hasattr(leaf, "dtype"):
        small = leaf.size <= _MOST_ENTRIES
        return np.asarray(leaf).tolist() if small else f"{leaf.dtype}{list(leaf.shape)}"
    return leaf if isinstance(leaf, bool | int | float | str) else repr(leaf)


def _name(path: tuple[Any, ...], *above: str) -> str:
    parts = [*above, *(jax.tree_util.keystr((key,), simple=True) for key in path)]
    return "/".join(parts) if parts else "hyper"


def _suggested(trial: Any, path: tuple[Any, ...], leaf: Any, domain: AbstractDomain) -> Any:
    is_array = hasattr(leaf, "dtype")
    is_float = np.issubdtype(leaf.dtype, np.floating) if is_array else isinstance(leaf, float)
    if isinstance(domain, rfho.Fixed) or not is_float:
        return leaf
    name, shape = _name(path), np.shape(leaf)
    lower, upper = (np.broadcast_to(bound, shape) for bound in _bounds(domain, name))
    drawn = np.empty(shape)
    for index in np.ndindex(shape):
        low, high = float(lower[index]), float(upper[index])
        entry = "/".join([name, *map(str, index)])
        log = low > 0 and high >= _LOGARITHMIC * low
        drawn[index] = trial.suggest_float(entry, low, high, log=log)
    return jax.numpy.asarray(drawn, leaf.dtype) if is_array else float(drawn)


def _bounds(domain: AbstractDomain, name: str) -> tuple[Any, Any]:
    if isinstance(domain, rfho.UnitInterval):
        return 0.0, 1.0
    if isinstance(domain, domains.Scaled):
        return _bounds(domain.domain, name)
    if isinstance(domain, rfho.Box | rfho.LogBox):
        lower, upper = np.asarray(domain.lower), np.asarray(domain.upper)
        if np.isfinite(lower).all() and np.isfinite(upper).all():
            return lower, upper
    raise ValueError(
        f"{name} has the domain {domain}, which has no two bounds to suggest a value between: give suggest a "
        "rfho.Box(lower, upper) for it, or rfho.Fixed() to keep its value"
    )
