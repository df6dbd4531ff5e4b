"""Searches without derivatives: at random, by TPE, by CMA-ES, at random with successive halving."""

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from rfho.experiments.races.contest import BOUNDS, ITERATIONS, Move, loss_on, objective, scaled
from rfho.experiments.races.tables import RaceTable
from rfho.runs.settings import one_of

RANDOM, TPE, CMA_ES, HALVING = "random search", "TPE", "CMA-ES", "successive halving"

SEARCHES = one_of(RANDOM, TPE, CMA_ES, HALVING)
"""The check of a setting that names them."""

_NEEDS = {RANDOM: (), TPE: ("optuna",), CMA_ES: ("optuna", "cmaes"), HALVING: ("optuna",)}
_RUNGS = (ITERATIONS // 27, ITERATIONS // 9, ITERATIONS // 3, ITERATIONS)


def lacking(search: str) -> list[str]:
    """The packages that a search needs and that are not installed."""
    return [package for package in _NEEDS[search] if find_spec(package) is None]


def search_of(name: str, table: RaceTable, start: Move, *, seed: int) -> Iterator[Move] | None:
    """The moves of a search; None where it has nothing to go by.

    Args:
        name: of the search.
        table: what is fitted.
        start: where all start.
        seed: of the draws.
    """
    if name == RANDOM:
        return random_search(table, seed)
    if name == HALVING and not table.model.iterates:
        return None
    for package in _NEEDS[name]:
        import_module(package)  # not while the clock runs
    value_of = _until_given_up if name == HALVING else _value
    return suggested(_study(name, table, start, seed=seed), table, value_of)


def _study(name: str, table: RaceTable, start: Move, *, seed: int) -> Any:
    """A study of Optuna's; all but successive halving are told of the start."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if name == HALVING:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed), pruner=pruner)
    first = dict(zip(_space(table), start.log_penalties, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        sampler: Any = (
            optuna.samplers.TPESampler(seed=seed, multivariate=True)
            if name == TPE
            else optuna.samplers.CmaEsSampler(x0=first, seed=seed, warn_independent_sampling=False)
        )
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(first)
    return study


def random_search(table: RaceTable, seed: int) -> Iterator[Move]:
    """Log penalties drawn evenly between the bounds."""
    rng = np.random.default_rng(seed)
    while True:
        yield objective(table, rng.uniform(*BOUNDS, table.groups))


def suggested(
    study: Any, table: RaceTable, value_of: Callable[[Any, RaceTable, np.ndarray], float]
) -> Iterator[Move]:
    """The trials of a study; one that is given up has no value of the objective: its move has an infinite one."""
    import optuna

    space = _space(table)
    while True:
        trial = study.ask(space)
        log_penalties = np.array([trial.params[name] for name in space])
        value = value_of(trial, table, log_penalties)
        given_up = optuna.trial.TrialState.PRUNED if np.isinf(value) else None
        study.tell(trial, None if given_up else value, state=given_up)
        yield Move(value, log_penalties)


def _value(trial: Any, table: RaceTable, log_penalties: np.ndarray) -> float:
    return objective(table, log_penalties).value


def _until_given_up(trial: Any, table: RaceTable, log_penalties: np.ndarray) -> float:
    """The objective, or infinity where a rung ends the trial: a draw goes on if it is in the best third.

    The model goes on from rung to rung, each of three times the iterations.
    """
    x, value, done = scaled(table.train.x, table.group, log_penalties), np.inf, 0
    model = table.model.new(_RUNGS[0])
    for rung, iterations in enumerate(_RUNGS):
        model.max_iter = iterations - done
        model, done = table.model.fitted(model, x, table.train.y), iterations
        value = loss_on(table.valid, table, log_penalties, model)
        # The pruner's rungs are at 1, 3, 9 and 27, as are the iterations.
        trial.report(value, 3**rung)
        if iterations < ITERATIONS and trial.should_prune():
            return np.inf
    return value


def _space(table: RaceTable) -> dict[str, Any]:
    import optuna

    even = optuna.distributions.FloatDistribution(*BOUNDS)
    return {f"group {number}": even for number in range(table.groups)}
