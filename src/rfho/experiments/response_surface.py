r"""The response surface: what a hypergradient method walks on (arXiv 1703.01785, sections 2 and 3).

For two hyperparameters the outer objective can be drawn,

.. math:: f(\eta, \rho) = E(w_T(\eta, \rho)),

the validation loss of a small network after T steps of gradient descent with learning rate η and
penalty ρ on its squared weights. Each point is a whole training run. Reverse-HO and Forward-HO
compute the same ∇f, so they take the same path down; real-time HO steers one single training run;
random search never looks down.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

import rfho
from rfho.experiments.base import Experiment, until_interrupted
from rfho.experiments.image_data import IMAGE_SETS, ImageSplit, load_image_split
from rfho.experiments.network import (
    Examples,
    Network,
    cross_entropy,
    random_network,
    squared_weights,
)
from rfho.experiments.pictures import COLOURS, LINES, figure
from rfho.experiments.run_folder import RunFolder
from rfho.experiments.settings import above, at_least, between, setting
from rfho.experiments.table import Column, Table, make_table, to_rich

Hyper = dict[str, Array]

STARTS = ((0.003, 0.1), (0.0025, 0.002), (1.0, 4e-5))
"""The rates and penalties from which every method starts."""

REVERSE = rfho.hyper_gradients.ReverseHyperGradient()
FORWARD = rfho.hyper_gradients.ForwardHyperGradient()


@dataclasses.dataclass(frozen=True)
class SurfaceSettings:
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
    seed: int = setting(0, "of split, initial network and random search", at_least(0))
    level: float = setting(2.2, "losses above it are drawn alike", above(0))


class Path(NamedTuple):
    """Where a method went from one start.

    Attributes:
        method: its name.
        start: which start.
        points: (η, ρ) at first and after each outer step.
        values: what the method saw at the points but the last.
        runs: plain training runs that it is taken to cost.
    """

    method: str
    start: int
    points: np.ndarray
    values: np.ndarray
    runs: int | float


def run(settings: SurfaceSettings, folder: RunFolder, console: Console) -> None:
    """Draws the surface, then walks on it with each method from each start."""
    sizes = (settings.train, settings.valid, 10)
    data = load_image_split(settings.data, sizes, seed=settings.seed)
    problem = training(data, settings, settings.horizon)
    one_run = training(data, settings, settings.online)
    surface = blank_surface(settings)
    paths: list[Path] = []
    with until_interrupted(folder, console):
        console.print(f"The surface: {settings.grid}² training runs")
        for row, penalty in enumerate(axis_of(settings.penalties, settings)):
            along = np.full(settings.grid, penalty)
            surface[row] = final_losses(problem, axis_of(settings.rates, settings), along)
        for method in (REVERSE, FORWARD, real_time(settings)):
            task = problem if method.limit(problem) is None else one_run
            paths += walk(task, method, settings, folder)
            console.print(f"{paths[-1].method}: done")
        paths += random_search(problem, settings)
    folder.add_arrays("surface", {"loss": surface}, "The surface (a row per penalty):")
    for path in paths:
        name = f"{path.method.lower().replace(' ', '-')}-{path.start + 1}"
        folder.add_arrays(name, {"points": path.points, "values": path.values}, "A path:")
    folder.add_picture("response-surface", draw(surface, paths, settings), _CAPTION)
    if paths:
        table = result_table(problem, paths)
        folder.add_table("results", table)
        console.print(to_rich(table))


def training(data: ImageSplit, settings: SurfaceSettings, horizon: int) -> rfho.Problem:
    """A network with one hidden layer, trained on the whole batch by momentum."""
    widths = (data.pixels, settings.hidden, len(data.class_names))

    def loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
        return cross_entropy(network, batch) + hyper["penalty"] * squared_weights(network)

    def validation_loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
        return cross_entropy(network, batch)

    dynamics = rfho.Descent(
        loss,
        lambda hyper: optax.sgd(hyper["rate"], settings.momentum),
        init=random_network(widths, seed=settings.seed),
    )
    return rfho.Problem(dynamics, validation_loss, data.train, data.valid, horizon)


def real_time(settings: SurfaceSettings) -> rfho.AbstractHyperGradient:
    return rfho.hyper_gradients.RealTimeHyperGradient(min(settings.every, settings.online))


def walk(
    problem: rfho.Problem,
    method: rfho.AbstractHyperGradient,
    settings: SurfaceSettings,
    folder: RunFolder,
) -> list[Path]:
    """The paths of one method from all starts, side by side."""
    once = method.limit(problem) is not None
    starts = [{"rate": jnp.float32(η), "penalty": jnp.float32(ρ)} for η, ρ in STARTS]
    points = [[_point(hyper)] for hyper in starts]
    values: list[list[float]] = [[] for _ in starts]
    name = _NAMES[type(method)]
    for reports in rfho.iterate_many(
        problem,
        starts,
        method=method,
        optim=optax.adam(settings.online_rate if once else settings.outer_rate),
        domain=rfho.Positive(),
        steps=None if once else settings.steps,
    ):
        for start, report in enumerate(reports):
            points[start].append(_point(report.hyper))
            values[start].append(report.value)
        seen = {f"loss {start + 1}": report.value for start, report in enumerate(reports)}
        folder.record({"method": name, "step": reports[0].step, **seen})
    runs = settings.price * (settings.online / settings.horizon if once else settings.steps)
    return [
        Path(name, start, np.array(points[start]), np.array(values[start]), runs)
        for start in range(len(starts))
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
        paths.append(Path("random search", start, points, values, count))
    return paths


def final_losses(problem: rfho.Problem, rates: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """f at several points, side by side."""
    hyper = {
        "rate": jnp.asarray(rates, jnp.float32),
        "penalty": jnp.asarray(penalties, jnp.float32),
    }
    return np.asarray(_concluded(problem, hyper))


@eqx.filter_jit
def _concluded(problem: rfho.Problem, hyper: Hyper) -> Array:
    return jax.vmap(lambda one: REVERSE.conclude(problem, one, None)[0])(hyper)


def axis_of(ends: tuple[float, ...], settings: SurfaceSettings) -> np.ndarray:
    """The points of the surface along one axis."""
    return np.geomspace(ends[0], ends[-1], settings.grid)


def blank_surface(settings: SurfaceSettings) -> np.ndarray:
    return np.full((settings.grid, settings.grid), np.nan)


def result_table(problem: rfho.Problem, paths: list[Path]) -> Table:
    """The validation loss with which each path ends, and its price."""
    rows = []
    for path in paths:
        best = int(np.nanargmin(path.values)) if path.method == "random search" else -1
        place = path.points[best]
        ended = float(final_losses(problem, place[:1], place[1:])[0])
        seen = None if path.method != "RTHO" else float(path.values[-1])
        rows.append([path.method, path.start + 1, *map(float, place), ended, seen, path.runs])
    columns = [
        Column("method"),
        Column("start", 0),
        Column("rate η", 4),
        Column("penalty ρ"),
        Column("f(η, ρ)", 4),
        Column("loss of the run itself", 4),
        Column("cost in training runs", 0),
    ]
    note = (
        f"Forward-HO follows Reverse-HO to within {_gap(paths):.1e} in η and ρ: both compute the "
        "same hypergradient. f is that of a fresh run at constant η and ρ; real-time HO changes them "
        "while it trains, so the loss of its own run is the one to look at."
    )
    return make_table("Where each path ends", columns, rows, note=note)


def draw(surface: np.ndarray, paths: list[Path], settings: SurfaceSettings) -> Figure:
    """The surface as filled contours, with the paths upon it."""
    drawn, axes = figure(width=7.0, height=4.8)
    axis: Axes = axes[0, 0]
    known = np.isfinite(surface)
    lowest = float(np.min(surface, where=known, initial=settings.level))
    levels = np.geomspace(max(lowest, 1e-3) * 0.999, settings.level * 1.001, 16)
    height = np.where(known, np.minimum(surface, settings.level), settings.level)
    across, up = axis_of(settings.rates, settings), axis_of(settings.penalties, settings)
    shades = colormaps["bone"](np.linspace(0.2, 1, len(levels) - 1))
    image = axis.contourf(across, up, height, levels, colors=shades)
    ticks = levels[::3]
    bar = drawn.colorbar(image, ax=axis, label="validation loss f(η, ρ) after T steps", ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks])
    for number, method in enumerate(dict.fromkeys(path.method for path in paths)):
        alike = [path for path in paths if path.method == method]
        _draw_method(axis, alike, number)
    axis.plot(*np.array(STARTS).T, "o", color="white", markeredgecolor="black", label="start")
    axis.set(xscale="log", xlabel="learning rate η", yscale="log", ylabel="penalty ρ")
    axis.set(xlim=settings.rates, ylim=settings.penalties)
    axis.grid(visible=False)
    drawn.legend(loc="outside upper center", ncols=5, frameon=False)
    return drawn


def _draw_method(axis: Axes, paths: list[Path], number: int) -> None:
    colour = COLOURS[(1, 4, 2, 5)[number % 4]]
    for path in paths:
        label = path.method if path is paths[0] else None
        if path.method == "random search":
            axis.plot(*path.points.T, ".", color=colour, markersize=2.5, alpha=0.7, label=label)
            continue
        line = LINES[number % len(LINES)]
        width = 3.2 if number == 0 else 1.6
        axis.plot(*path.points.T, line, color=colour, linewidth=width, label=label)
        axis.plot(*path.points[-1], "*", color=colour, markersize=13, markeredgecolor="black")


def _gap(paths: list[Path]) -> float:
    """The largest difference between the points of Reverse-HO and Forward-HO."""
    ends = {(path.method, path.start): path.points for path in paths}
    gaps = [
        float(np.max(np.abs(points - ends["Forward-HO", start])))
        for (method, start), points in ends.items()
        if method == "Reverse-HO" and ("Forward-HO", start) in ends
    ]
    return max(gaps, default=float("nan"))


def _point(hyper: Mapping[str, Any]) -> tuple[float, float]:
    return float(hyper["rate"]), float(hyper["penalty"])


_NAMES: dict[type, str] = {
    rfho.hyper_gradients.ReverseHyperGradient: "Reverse-HO",
    rfho.hyper_gradients.ForwardHyperGradient: "Forward-HO",
    rfho.hyper_gradients.RealTimeHyperGradient: "RTHO",
}

_CAPTION = (
    "The validation loss after T steps of training over rate and penalty (dark is low), and the "
    "paths of the methods from the same three starts; a star marks the end of a path. Forward-HO "
    "computes the same hypergradients as Reverse-HO and lies on it."
)

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
