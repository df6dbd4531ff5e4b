r"""The response surface: what a hypergradient method walks on (arXiv 1703.01785, sections 2 and 3).

For two hyperparameters the outer objective can be drawn,

.. math:: f(\eta, \rho) = E(w_T(\eta, \rho)),

the validation loss of a small network after T steps of gradient descent with learning rate η and
penalty ρ on its squared weights. Each point is a whole training run. Reverse-HO and Forward-HO
compute the same ∇f, so they take the same path down; real-time HO steers one single training run;
random search never looks down.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.parts.image_data import IMAGE_SETS, ImageSplit, load_image_split
from rfho.experiments.parts.network import (
    Examples,
    Network,
    cross_entropy,
    random_network,
    squared_weights,
)
from rfho.experiments.response_surface.report import (
    CAPTION,
    FORWARD,
    RANDOM,
    REAL_TIME,
    REVERSE,
    Path,
    Surface,
    draw,
    result_table,
)
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, between, setting
from rfho.runs.stopwatch import compiled, ratios, whole_run
from rfho.runs.study import add_tables

Hyper = dict[str, Array]

STARTS = ((0.003, 0.1), (0.0025, 0.002), (1.0, 4e-5))
"""The rates and penalties from which every method starts."""


@dataclasses.dataclass(frozen=True)
class SurfaceSettings:
    """The network, the surface, and how the methods walk on it."""

    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    train: int = setting(100, "training examples", at_least(10))
    valid: int = setting(400, "validation examples", at_least(10))
    hidden: int = setting(16, "hidden units", at_least(1))
    horizon: int = setting(100, "inner steps T", at_least(2))
    grid: int = setting(25, "points of the surface along each axis", at_least(2))
    rates: tuple[float, ...] = setting((1e-3, 2.0), "ends of the axis of the rate", above(0))
    penalties: tuple[float, ...] = setting((1e-5, 0.3), "ends of the axis of the penalty", above(0))
    momentum: float = setting(0.9, "of the inner steps", between(0, 1))
    steps: int = setting(40, "outer steps of Reverse-HO and Forward-HO", at_least(1))
    outer_rate: float = setting(0.15, "rate of Adam on log η and log ρ", above(0))
    online: int = setting(400, "inner steps of the one run of real-time HO", at_least(2))
    every: int = setting(4, "inner steps between its updates", at_least(1))
    online_rate: float = setting(0.05, "rate of Adam on log η and log ρ there", above(0))
    price: int = setting(4, "plain runs that a hypergradient is taken to cost", at_least(1))
    rounds: int = setting(5, "in which it is timed beside plain runs", at_least(1))
    seed: int = setting(0, "of split, initial network and random search", at_least(0))
    level: float = setting(2.2, "losses above it are drawn alike", above(0))


def training(data: ImageSplit, settings: SurfaceSettings, horizon: int) -> rfho.Problem:
    """A network with one hidden layer, trained on the whole batch by momentum."""
    widths = (data.pixels, settings.hidden, len(data.class_names))

    def loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
        return cross_entropy(network, hyper, batch) + hyper["penalty"] * squared_weights(network)

    dynamics = rfho.Descent(
        loss,
        lambda hyper: optax.sgd(hyper["rate"], settings.momentum),
        init=random_network(widths, seed=settings.seed),
    )
    return rfho.Problem(dynamics, cross_entropy, data.train, data.valid, horizon)


def methods(settings: SurfaceSettings) -> dict[str, rfho.hyper_gradients.AbstractHyperGradient]:
    """Those that walk; the last of them updates while it trains, once."""
    return {
        REVERSE: rfho.ReverseHyperGradient(),
        FORWARD: rfho.ForwardHyperGradient(),
        REAL_TIME: rfho.RealTimeHyperGradient(min(settings.every, settings.online)),
    }


def run(settings: SurfaceSettings, folder: RunFolder, console: Console) -> None:
    """Draws the surface, then walks on it with each method from each start."""
    sizes = (settings.train, settings.valid, 10)
    data = load_image_split(settings.data, sizes, seed=settings.seed)
    problem = training(data, settings, settings.horizon)
    one_run = training(data, settings, settings.online)
    problems = {REVERSE: problem, FORWARD: problem, REAL_TIME: one_run}
    rates, penalties = (
        np.geomspace(ends[0], ends[-1], settings.grid)
        for ends in (settings.rates, settings.penalties)
    )
    surface = Surface(rates, penalties, np.full((settings.grid, settings.grid), np.nan))
    paths: list[Path] = []
    with until_interrupted(folder, console):
        console.print(f"The surface: {settings.grid}² training runs")
        for row, penalty in enumerate(surface.penalties):
            penalties = np.full(settings.grid, penalty)
            surface.losses[row] = final_losses(problem, surface.rates, penalties)
        prices = measured_prices(problems, settings)
        for name, task in problems.items():
            paths += walk(name, task, settings, folder=folder, price=prices[name])
            console.print(f"{name}: done")
        paths += random_search(problem, settings)
    folder.add_arrays("surface", {"loss": surface.losses}, "The surface (a row per penalty):")
    for path in paths:
        name = f"{path.method.lower().replace(' ', '-')}-{path.start + 1}"
        folder.add_arrays(name, {"points": path.points, "values": path.values}, "A path:")
    folder.add_picture("response-surface", draw(surface, paths, level=settings.level), CAPTION)
    if paths:
        ends = np.array([path.end for path in paths])
        table = result_table(paths, final_losses(problem, *ends.T).tolist())
        add_tables(folder, console, {"results": table})


def walk(
    name: str, problem: rfho.Problem, settings: SurfaceSettings, *, folder: RunFolder, price: float
) -> list[Path]:
    """The paths of one method from all starts, side by side."""
    once = name == REAL_TIME
    points = [[start] for start in STARTS]
    values: list[list[float]] = [[] for _ in STARTS]
    for rows in rfho.iterate_many(
        problem,
        [_hyper(*start) for start in STARTS],
        method=methods(settings)[name],
        optim=optax.adam(settings.online_rate if once else settings.outer_rate),
        domain=rfho.Positive(),
        steps=None if once else settings.steps,
        run=OuterLoop(folder, name),
    ):
        reports = [report for report in rows if report is not None]
        for report in reports:
            start = report.member
            points[start].append((float(report.hyper["rate"]), float(report.hyper["penalty"])))
            values[start].append(report.value)
        seen = {f"loss {report.member + 1}": report.value for report in reports}
        folder.record({"method": name, "step": reports[0].step, **seen})
    runs = settings.price * (settings.online / settings.horizon if once else settings.steps)
    measured = price * (1 if once else settings.steps)
    return [
        Path(name, start, np.array(points[start]), np.array(values[start]), runs, measured)
        for start in range(len(STARTS))
    ]


def random_search(problem: rfho.Problem, settings: SurfaceSettings) -> list[Path]:
    """The start, then points drawn uniformly over the picture, for as many runs as Reverse-HO cost."""
    paths: list[Path] = []
    count = settings.price * settings.steps
    for start, first in enumerate(STARTS):
        generator = np.random.default_rng([settings.seed, start])
        ends = np.log([settings.rates, settings.penalties])
        points = np.exp(generator.uniform(ends[:, 0], ends[:, -1], (count, 2)))
        points[0] = first
        values = final_losses(problem, points[:, 0], points[:, 1])
        paths.append(Path(RANDOM, start, points, values, count, count))
    return paths


def measured_prices(
    problems: dict[str, rfho.Problem], settings: SurfaceSettings
) -> dict[str, float]:
    """In plain training runs of T steps: one hypergradient, or the whole one run of real-time HO."""
    hyper = _hyper(*STARTS[0])
    plain = compiled(lambda p, h: rfho.train(p, h).value, problems[REVERSE], hyper)
    programs = {
        name: compiled(whole_run(method), problems[name], hyper)
        for name, method in methods(settings).items()
    }
    return ratios(plain, programs, settings.rounds)


def final_losses(problem: rfho.Problem, rates: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """f at several points, side by side."""
    columns = {"rate": rates, "penalty": penalties}
    hyper = {name: jnp.asarray(column, jnp.float32) for name, column in columns.items()}
    return np.asarray(_values(problem, hyper))


@eqx.filter_jit
def _values(problem: rfho.Problem, hyper: Hyper) -> Array:
    return jax.vmap(lambda one: rfho.train(problem, one).value)(hyper)


def _hyper(rate: float, penalty: float) -> Hyper:
    return {"rate": jnp.float32(rate), "penalty": jnp.float32(penalty)}


RESPONSE_SURFACE = Experiment(
    name="response-surface",
    title="The response surface",
    summary=(
        "Draws the validation loss of a small network over learning rate and penalty, with the "
        "paths of Reverse-HO, Forward-HO, real-time HO and random search "
        "(arXiv 1703.01785, sections 2 and 3)."
    ),
    quick=SurfaceSettings(),
    full=SurfaceSettings(grid=50, horizon=200, online=800, steps=60),
    run=run,
)
