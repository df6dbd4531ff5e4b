"""A race at equal CPU time: whoever has used least moves next, its compilation included.

Those who cannot differentiate train by scikit-learn's logistic regression, which compiles nothing and is the
fastest way to a value that they have; all descend the same validation loss from the same start.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from rfho.experiments.races.tables import Part, RaceTable
from rfho.runs.stopwatch import clock

BOUNDS = (np.log(1e-2), np.log(1e5))
"""Of log λ, for all."""


class Move(NamedTuple):
    """One value of the objective, and the log penalties at which it was taken."""

    value: float
    log_penalties: np.ndarray


class Standing(NamedTuple):
    """Where one racer stands.

    Attributes:
        seconds: CPU seconds used, compilation included.
        compiling: of them, what the first move took beyond the second.
        moves: how many.
        best: the lowest objective, where it was taken.
        path: best objective after each move, and the seconds then.
    """

    seconds: float
    compiling: float
    moves: int
    best: Move
    path: tuple[tuple[float, float], ...]


def race(
    racers: Mapping[str, Iterator[Move]], start: Move, budget: float
) -> Iterator[dict[str, Standing]]:
    """All standings after every move, until each racer has used ``budget`` CPU seconds or has ended."""
    first = Standing(0.0, 0.0, 0, start, ((0.0, start.value),))
    standings = dict.fromkeys(racers, first)
    running = set(racers)
    while running:
        name = min(running, key=lambda racer: standings[racer].seconds)
        begin = clock()
        move = next(racers[name], None)
        if move is None:
            running.discard(name)
            continue
        standings[name] = _moved(standings[name], move, clock() - begin)
        if standings[name].seconds >= budget:
            running.discard(name)
        yield dict(standings)


def _moved(before: Standing, move: Move, spent: float) -> Standing:
    compiling = before.compiling
    if before.moves == 0:
        compiling = spent
    elif before.moves == 1:
        compiling = max(compiling - spent, 0.0)
    seconds = before.seconds + spent
    best = move if move.value < before.best.value else before.best
    path = (*before.path, (seconds, best.value))
    return Standing(seconds, compiling, before.moves + 1, best, path)


def trained(part: Part, group: np.ndarray, log_penalties: np.ndarray) -> LogisticRegression:
    """Logistic regression under the penalties: of features scaled by their roots, under a penalty of one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=1.0, max_iter=300, tol=1e-4).fit(
            scaled(part.x, group, log_penalties), part.y
        )


def scaled(x: np.ndarray, group: np.ndarray, log_penalties: np.ndarray) -> np.ndarray:
    """Columns divided by the roots of their penalties."""
    return x * np.exp(-0.5 * log_penalties)[group]


def loss_on(part: Part, table: RaceTable, log_penalties: np.ndarray, model: Any) -> float:
    """Cross-entropy of a model on a part."""
    chances = model.predict_proba(scaled(part.x, table.group, log_penalties))
    return float(log_loss(part.y, chances, labels=model.classes_))


def objective(table: RaceTable, log_penalties: np.ndarray) -> Move:
    """The validation loss of the model trained under the penalties."""
    model = trained(table.train, table.group, log_penalties)
    return Move(loss_on(table.valid, table, log_penalties, model), log_penalties)


def tested(table: RaceTable, log_penalties: np.ndarray) -> tuple[float, float]:
    """Test loss and accuracy in per cent of the model that is trained again on training and validation set."""
    both = Part(*(np.concatenate(parts) for parts in zip(table.train, table.valid, strict=True)))
    model = trained(both, table.group, log_penalties)
    right = model.score(scaled(table.test.x, table.group, log_penalties), table.test.y)
    return loss_on(table.test, table, log_penalties, model), 100 * float(right)


def one_for_all(table: RaceTable) -> Move:
    """The best shared penalty of a grid: where all racers start."""
    grid = np.linspace(BOUNDS[0], BOUNDS[1], 12)
    tries = [objective(table, np.full(table.groups, shared)) for shared in grid]
    return min(tries, key=lambda move: move.value)


def random_search(table: RaceTable, seed: int) -> Iterator[Move]:
    """Log penalties drawn evenly between the bounds."""
    rng = np.random.default_rng(seed)
    while True:
        yield objective(table, rng.uniform(*BOUNDS, table.groups))


def tree_parzen(table: RaceTable, start: Move, seed: int) -> Iterator[Move]:
    """Optuna's multivariate TPE, told of the start."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    space: dict[str, Any] = {
        f"group {i}": optuna.distributions.FloatDistribution(*BOUNDS) for i in range(table.groups)
    }
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(dict(zip(space, start.log_penalties, strict=True)))
    while True:
        trial = study.ask(space)
        move = objective(table, np.array([trial.params[name] for name in space]))
        study.tell(trial, move.value)
        yield move
