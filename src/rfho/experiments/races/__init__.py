r"""Many penalties at once: hypergradients beside searches without derivatives, at equal CPU time.

A linear model has a penalty λ_g for each group of features. It is trained on the training set,

.. math:: W(\lambda) = \arg\min_W \sum_i \ell(y_i, W^\top x_i)
          + \tfrac12 \sum_g \lambda_g \lVert W_g \rVert^2 ,

and all racers descend its loss ℓ on the validation set. Everybody starts at the best penalty that all groups
share; whoever has used the least CPU time moves next, compilation counted, and compiled anew for every race. In
the end, and on the way, each model is trained again on both sets, and tested.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.live import Live

from rfho.experiments.races.comparison import OURS, advantages, compared, over_time
from rfho.experiments.races.contest import Move, Standing, objective, one_for_all, race, tested
from rfho.experiments.races.descent import by_hypergradients
from rfho.experiments.races.models import OWN
from rfho.experiments.races.report import COLUMNS, by_number, penalty_images, ways_down
from rfho.experiments.races.screen import line, screen
from rfho.experiments.races.searches import SEARCHES, lacking, search_of
from rfho.experiments.races.tables import TASKS, RaceTable, has_own_groups, race_table
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.stopwatch import clock
from rfho.runs.study import Record, add_tables, grouped, tabulated

_MOMENTS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclasses.dataclass(frozen=True)
class RaceSettings:
    """The tables, the numbers of penalties, and the time."""

    tasks: tuple[str, ...] = setting(("digits",), "tables, with a race each", TASKS)
    penalties: tuple[int, ...] = setting(
        (32,), "numbers m of penalties of digits and speech, with a race each", at_least(1)
    )
    train: int = setting(200, "training examples of digits and speech", at_least(20))
    valid: int = setting(400, "validation examples of digits and speech", at_least(20))
    searches: tuple[str, ...] = setting(("random search", "TPE"), "opponents", SEARCHES)
    tools: bool = setting(False, "fit also what takes all examples and chooses by folds")
    budget: float = setting(10.0, "CPU seconds of each racer, compilation included", above(0))
    rate: float = setting(0.3, "of Adam on log λ", above(0))
    seed: int = setting(0, "of the split, the noise and the searches", at_least(0))
    repeats: int = setting(1, "seeds of each race: seed, seed + 1, …", at_least(1))


def races_of(settings: RaceSettings) -> Iterator[tuple[str, int]]:
    """A table and m for each race; 0 where m is the table's affair."""
    for task in settings.tasks:
        for groups in (0,) if has_own_groups(task) else settings.penalties:
            yield task, groups


def racers_of(table: RaceTable, start: Move, settings: RaceSettings, seed: int) -> dict[str, Any]:
    """All racers whose packages are installed and who apply to the table."""
    racers: dict[str, Any] = {OURS: by_hypergradients(table, start, settings.rate)}
    for name in settings.searches:
        moves = None if lacking(name) else search_of(name, table, start, seed=seed)
        if moves is not None:
            racers[name] = moves
    return racers


def watch(
    table: RaceTable, start: Move, settings: RaceSettings, *, seed: int, console: Console
) -> dict[str, Standing]:
    """One race on the screen; a line now and then where there is none."""
    jax.clear_caches()  # or the second race of a size would compile nothing
    racers = racers_of(table, start, settings, seed)
    standings: dict[str, Standing] = {}
    learned = lambda: standings[OURS].best.log_penalties[table.group]  # noqa: E731
    said = 0.0
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        for standings in race(racers, start, settings.budget):
            if console.is_terminal:
                live.update(screen(standings, settings.budget, penalties=learned()))
            elif (used := min(each.seconds for each in standings.values())) >= said:
                console.print(line(standings))
                said = used + settings.budget / 5
    console.print(screen(standings, settings.budget, penalties=learned()))
    return standings


def results(
    table: RaceTable, start: Move, standings: dict[str, Standing], settings: RaceSettings
) -> Iterator[Record]:
    """What each came to, and the shared penalty without any race."""
    moments = [*(each for each in _MOMENTS if each < settings.budget), settings.budget]
    shared = Standing(((0.0, start),))
    for name, standing in {"one penalty for all, by grid": shared, **standings}.items():
        way = [*map(standing.best_at, moments[:-1]), standing.best]
        judged = {id(move): _judged(table, move.log_penalties) for move in way}
        values, losses, _ = zip(*(judged[id(move)] for move in way), strict=True)
        yield {
            "racer": name,
            "objective": values[-1],
            "test loss": losses[-1],
            "test score %": judged[id(standing.best)][2],
            "moves": float(standing.moves),
            "CPU s": standing.seconds,
            "of which compiling": standing.compiling,
            "moments": moments,
            "objective then": list(values),
            "test loss then": list(losses),
        }
    for name, new in (table.model.tools if settings.tools else {}).items():
        yield _of_tool(name, new(), table)


def _judged(table: RaceTable, log_penalties: np.ndarray) -> tuple[float, float, float]:
    """Objective, test loss and score, for all racers by the same solver, whatever they thought of it."""
    return objective(table, log_penalties).value, *tested(table, log_penalties)


def _of_tool(name: str, model: Any, table: RaceTable) -> Record:
    """A model that takes all examples at once; rfho's own is told of the groups."""
    both, begin = table.both, clock()
    if name in OWN:
        model.fit(both.x, both.y, groups=table.group)
    else:
        table.model.fitted(model, both.x, both.y)
    seconds = clock() - begin
    x, y = table.test
    loss, score = (of(model, x, y) for of in (table.model.loss, table.model.score))
    return {"racer": name, "test loss": loss, "test score %": score, "CPU s": seconds}


def run(settings: RaceSettings, folder: RunFolder, console: Console) -> None:
    """A race for each table, each number of penalties and each seed."""
    sizes = settings.train, settings.valid
    for task, groups in races_of(settings):  # what does not fit is refused before the first race
        race_table(task, sizes, groups=groups, seed=settings.seed)
    records: list[Record] = []
    for name in settings.searches:
        if packages := lacking(name):
            console.print(f"{name} is left out: it needs {' and '.join(packages)}")
    with until_interrupted(folder, console):
        for seed in range(settings.seed, settings.seed + settings.repeats):
            for task, groups in races_of(settings):
                table = race_table(task, sizes, groups=groups, seed=seed)
                start = one_for_all(table)
                where = f"{task}, m = {table.groups}"
                console.print(f"{where}, seed {seed}: {start.value:.4f} with one for all")
                standings = watch(table, start, settings, seed=seed, console=console)
                about = {"table": task, "penalties": table.groups, "seed": seed}
                for record in results(table, start, standings, settings):
                    row = f"{where}, {record['racer']}"
                    records.append({"row": row, **about, **record})
                    folder.record(_plain(records[-1]))
                if seed == settings.seed:
                    add_race(folder, standings, settings, where=(task, table))
    if records:
        add_results(folder, console, records, settings)


def _plain(record: Record) -> Record:
    """Without the way there, of which a history wants no lists."""
    return {name: each for name, each in record.items() if not isinstance(each, list)}


def add_race(
    folder: RunFolder,
    standings: dict[str, Standing],
    settings: RaceSettings,
    *,
    where: tuple[str, RaceTable],
) -> None:
    """The way down, and the penalties of rfho."""
    task, table = where
    name = f"race-{task}-{table.groups}"
    caption = (
        f"The best validation loss so far, {task}, {table.groups} penalties, seed {settings.seed}."
    )
    folder.add_picture(name, ways_down(standings), caption)
    penalties = standings[OURS].best.log_penalties
    folder.add_arrays(f"{name}-penalties", {"log_penalties": penalties}, "log λ of rfho:")
    if task == "digits":
        caption = "Penalties that rfho learned: dark is kept, white is silenced."
        drawn = penalty_images(penalties[table.group])
        folder.add_picture(f"{name}-penalties", drawn, caption)


def add_results(
    folder: RunFolder, console: Console, records: list[Record], settings: RaceSettings
) -> None:
    """Pictures over the number of penalties and over time, and the tables."""
    for task, own in grouped(records, "table").items():
        if len({record["penalties"] for record in own}) > 1:
            caption = f"What is left at the end, {task}, by number of penalties: median and range over seeds."
            drawn = by_number([record for record in own if "objective" in record])
            folder.add_picture(f"by-number-{task}", drawn, caption)
    note = f"{settings.budget:g} CPU seconds for each racer. Mean ± deviation over seeds."
    tables = {"results": tabulated("Races", records, COLUMNS, by="row", note=note)}
    if settings.repeats > 1:
        caption = (
            "By how much rfho is lower than each opponent, in per cent of theirs: median and range of the paired "
            "differences over seeds; above zero rfho wins."
        )
        folder.add_picture("advantages", advantages(records), caption)
        caption = (
            "Objective and test loss over CPU seconds, compilation counted: medians over seeds."
        )
        folder.add_picture("over-time", over_time(records), caption)
        tables["compared"] = compared(records)
    add_tables(folder, console, tables)


RACES = Experiment(
    name="races",
    title="Races at equal CPU time",
    summary=(
        "Learns a penalty for each group of features, by implicit hypergradients, by random search, by successive "
        "halving, by TPE and by CMA-ES, side by side at equal CPU time."
    ),
    quick=RaceSettings(),
    full=RaceSettings(
        tasks=("speech", "cancer", "adult", "elevation", "cover", "news"),
        penalties=(1, 3, 10, 30, 100, 300),
        searches=("random search", "successive halving", "TPE", "CMA-ES"),
        tools=True,
        budget=30.0,
        repeats=5,
    ),
    run=run,
)
