r"""Many penalties at once: hypergradients beside random search and TPE, at equal CPU time.

Softmax regression has a penalty λ_g for each group of features. The model is trained on the training set,

.. math:: W(\lambda) = \arg\min_W \sum_i \mathrm{CE}(y_i, W^\top x_i)
          + \tfrac12 \sum_g \lambda_g \lVert W_g \rVert^2 ,

and all racers descend its cross-entropy on the validation set. Half of the columns are noise. Everybody
starts at the best penalty that all groups share; whoever has used the least CPU time moves next, compilation
counted. In the end each model is trained again on both sets, and tested.
"""

import dataclasses
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from rich.console import Console
from rich.live import Live

import rfho
from rfho.experiments.races.contest import (
    BOUNDS,
    Move,
    Standing,
    one_for_all,
    race,
    random_search,
    tested,
    tree_parzen,
)
from rfho.experiments.races.report import COLUMNS, by_number, penalty_images, ways_down
from rfho.experiments.races.screen import line, screen
from rfho.experiments.races.tables import TASKS, RaceTable, race_table
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.study import Record, add_tables, tabulated

OURS = "rfho"
RANDOM = "random search"
TPE = "TPE"


@dataclasses.dataclass(frozen=True)
class RaceSettings:
    """The tables, the numbers of penalties, and the time."""

    task: str = setting("digits", "table: digits or speech", TASKS)
    penalties: tuple[int, ...] = setting((32,), "numbers m of penalties, a race each", at_least(1))
    train: int = setting(200, "training examples", at_least(20))
    valid: int = setting(400, "validation examples", at_least(20))
    budget: float = setting(10.0, "CPU seconds of each racer, compilation included", above(0))
    rate: float = setting(0.3, "of Adam on log λ", above(0))
    seed: int = setting(0, "of the split, the noise and the searches", at_least(0))
    repeats: int = setting(1, "seeds of each race: seed, seed + 1, …", at_least(1))


def cross_entropy(params: Any, hyper: Any, batch: Any) -> Float[Array, ""]:
    """The mean over examples: what is made small, on the validation set."""
    x, y, group = batch
    scale = jnp.exp(-0.5 * jnp.log(hyper["penalties"]))[group][:, None]
    logits = x @ (scale * params["weight"]) + params["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def training_loss(params: Any, hyper: Any, batch: Any) -> Float[Array, ""]:
    """Of features scaled by the roots of their penalties: the same minimum, far better conditioned."""
    ridge = 0.5 * jnp.sum(params["weight"] ** 2) + 1e-4 * jnp.sum(params["bias"] ** 2)
    return cross_entropy(params, hyper, batch) + ridge / len(batch[1])


def by_hypergradients(table: RaceTable, start: Move, settings: RaceSettings) -> Iterator[Move]:
    """Adam on log λ, by implicit differentiation at the minimum that Newton's method finds."""
    columns = table.train.x.shape[1]
    init = {"weight": jnp.zeros((columns, table.classes)), "bias": jnp.zeros(table.classes)}
    train, valid = (
        (*map(jnp.asarray, part), jnp.asarray(table.group)) for part in (table.train, table.valid)
    )
    hyper = {"penalties": jnp.exp(jnp.asarray(start.log_penalties, jnp.float32))}
    for report in rfho.iterate(
        rfho.Problem(
            rfho.dynamics.Newton(training_loss, init), cross_entropy, train, valid, horizon=4
        ),
        hyper,
        method=rfho.ImplicitHyperGradient(inner_tolerance=1e-4, tolerance=1e-2, audit=None),
        optim=optax.adam(settings.rate),
        domain=rfho.LogBox(float(np.exp(BOUNDS[0])), float(np.exp(BOUNDS[1]))),
        steps=10**6,
    ):
        # The value of a step belongs to the λ before it.
        yield Move(report.value, np.log(np.asarray(hyper["penalties"], float)))
        hyper = report.hyper


def racers_of(table: RaceTable, start: Move, settings: RaceSettings, seed: int) -> dict[str, Any]:
    """All racers; TPE where Optuna is installed."""
    racers = {
        OURS: by_hypergradients(table, start, settings),
        RANDOM: random_search(table, seed),
    }
    if find_spec("optuna") is not None:
        racers[TPE] = tree_parzen(table, start, seed)
    return racers


def watch(
    table: RaceTable, start: Move, settings: RaceSettings, *, seed: int, console: Console
) -> dict[str, Standing]:
    """One race on the screen; a line now and then where there is none."""
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
    table: RaceTable, start: Move, standings: dict[str, Standing], seed: int
) -> Iterator[Record]:
    """What each came to, and the shared penalty without any race."""
    shared = Standing(0.0, 0.0, 0, start, ())
    for name, standing in {"one penalty for all, by grid": shared, **standings}.items():
        loss, accuracy = tested(table, standing.best.log_penalties)
        yield {
            "racer": name,
            "penalties": table.groups,
            "row": f"{name}, m = {table.groups}",
            "seed": seed,
            "objective": standing.best.value,
            "test loss": loss,
            "test accuracy %": accuracy,
            "moves": float(standing.moves),
            "CPU s": standing.seconds,
            "of which compiling": standing.compiling,
        }


def run(settings: RaceSettings, folder: RunFolder, console: Console) -> None:
    """A race for each number of penalties and each seed."""
    records: list[Record] = []
    sizes = settings.train, settings.valid
    with until_interrupted(folder, console):
        for groups in settings.penalties:
            for seed in range(settings.seed, settings.seed + settings.repeats):
                table = race_table(settings.task, sizes, groups=groups, seed=seed)
                start = one_for_all(table)
                console.print(
                    f"{groups} penalties, seed {seed}: {start.value:.4f} with one for all"
                )
                standings = watch(table, start, settings, seed=seed, console=console)
                for record in results(table, start, standings, seed):
                    records.append(record)
                    folder.record(record)
                if seed == settings.seed:
                    add_race(folder, standings, settings, table)
    if not records:
        return
    if len(settings.penalties) > 1:
        caption = "What is left at the end, by number of penalties: median and range over seeds."
        folder.add_picture("by-number", by_number(records), caption)
    note = (
        f"{settings.task}: {settings.train} training and {settings.valid} validation examples; tested after "
        f"training on both. {settings.budget:g} CPU seconds for each racer. Mean ± deviation over seeds."
    )
    columns = {"row": None} | {name: COLUMNS[name] for name in list(COLUMNS)[2:]}
    table = tabulated("Races", records, columns, by="row", note=note)
    add_tables(folder, console, {"results": table})


def add_race(
    folder: RunFolder, standings: dict[str, Standing], settings: RaceSettings, table: RaceTable
) -> None:
    """The way down, and the penalties of rfho."""
    name = f"race-{table.groups}"
    caption = f"The best validation loss so far, {table.groups} penalties, seed {settings.seed}."
    folder.add_picture(name, ways_down(standings), caption)
    penalties = standings[OURS].best.log_penalties
    folder.add_arrays(f"{name}-penalties", {"log_penalties": penalties}, "log λ of rfho:")
    if settings.task == "digits":
        caption = "Penalties that rfho learned: dark is kept, white is silenced."
        drawn = penalty_images(penalties[table.group])
        folder.add_picture(f"{name}-penalties", drawn, caption)


RACES = Experiment(
    name="races",
    title="Races at equal CPU time",
    summary=(
        "Learns a penalty for each group of features, half of which are noise, by implicit hypergradients, by "
        "random search and by TPE, side by side at equal CPU time."
    ),
    quick=RaceSettings(),
    full=RaceSettings(task="speech", penalties=(1, 3, 10, 30, 100, 320), budget=60.0, repeats=5),
    run=run,
)
