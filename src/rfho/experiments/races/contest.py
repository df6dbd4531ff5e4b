"""A race at equal CPU time: whoever has used least moves next, its compilation included.

Those who cannot differentiate train by scikit-learn, which compiles nothing and is the fastest way to a value that
they have; all descend the same validation loss from the same start.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rfho.experiments.races.tables import Part, RaceTable
from rfho.runs.stopwatch import clock

BOUNDS = (np.log(1e-2), np.log(1e5))
"""Of log λ, for all."""

ITERATIONS = 300
"""Of logistic regression, at most."""


class Move(NamedTuple):
    """One value of the objective, and the log penalties at which it was taken."""

    value: float
    log_penalties: np.ndarray


class Standing(NamedTuple):
    """Where one racer stands.

    Attributes:
        leads: every move that was the best so far, and the seconds then; the first is the start.
        seconds: CPU seconds used, compilation included.
        compiling: of them, what the first move took beyond the second.
        moves: how many.
    """

    leads: tuple[tuple[float, Move], ...]
    seconds: float = 0.0
    compiling: float = 0.0
    moves: int = 0

    @property
    def best(self) -> Move:
        """The lowest objective, where it was taken."""
        return self.leads[-1][1]

    @property
    def way_down(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds, and the best objective from then on; now comes last."""
        times, moves = zip(*self.leads, (self.seconds, self.best), strict=True)
        return np.array(times), np.array([move.value for move in moves])

    def best_at(self, seconds: float) -> Move:
        """The best move that had been taken by then."""
        return [move for then, move in self.leads if then <= seconds][-1]


def race(
    racers: Mapping[str, Iterator[Move]], start: Move, budget: float
) -> Iterator[dict[str, Standing]]:
    """All standings after every move, until each racer has used ``budget`` CPU seconds or has ended."""
    standings = dict.fromkeys(racers, Standing(((0.0, start),)))
    running = list(racers)
    while running:
        name = min(running, key=lambda racer: standings[racer].seconds)
        begin = clock()
        move = next(racers[name], None)
        if move is None:
            running.remove(name)
            continue
        standings[name] = _moved(standings[name], move, clock() - begin)
        if standings[name].seconds >= budget:
            running.remove(name)
        yield dict(standings)


def _moved(before: Standing, move: Move, spent: float) -> Standing:
    compiling = before.compiling
    if before.moves == 0:
        compiling = spent
    elif before.moves == 1:
        compiling = max(compiling - spent, 0.0)
    seconds = before.seconds + spent
    leads = before.leads
    if move.value < before.best.value:
        leads = (*leads, (seconds, move))
    return Standing(leads, seconds, compiling, before.moves + 1)


def scaled(x: np.ndarray, group: np.ndarray, log_penalties: np.ndarray) -> np.ndarray:
    """Columns divided by the roots of their penalties."""
    return x * np.exp(-0.5 * log_penalties)[group]


def objective(table: RaceTable, log_penalties: np.ndarray) -> Move:
    """The validation loss of the model trained under the penalties."""
    x, y = scaled(table.train.x, table.group, log_penalties), table.train.y
    model = table.model.fitted(table.model.new(ITERATIONS), x, y)
    return Move(loss_on(table.valid, table, log_penalties, model), log_penalties)


def loss_on(part: Part, table: RaceTable, log_penalties: np.ndarray, model: object) -> float:
    """ℓ of a model on a part."""
    return table.model.loss(model, scaled(part.x, table.group, log_penalties), part.y)


def tested(table: RaceTable, log_penalties: np.ndarray) -> tuple[float, float]:
    """Test loss and score in per cent of the model that is trained again on training and validation set."""
    both = table.both
    x = scaled(both.x, table.group, log_penalties)
    model = table.model.fitted(table.model.new(ITERATIONS), x, both.y)
    score = table.model.score(model, scaled(table.test.x, table.group, log_penalties), table.test.y)
    return loss_on(table.test, table, log_penalties, model), score


def one_for_all(table: RaceTable) -> Move:
    """The best shared penalty of a grid: where all racers start."""
    grid = np.linspace(BOUNDS[0], BOUNDS[1], 12)
    tries = [objective(table, np.full(table.groups, shared)) for shared in grid]
    return min(tries, key=lambda move: move.value)
