r"""Learned schedules: one learning rate per step, layer and kind of parameter.

A network of four layers is trained for 100 steps (arXiv 1502.03492, section 3.1). Every step has a
rate for the weights and one for the biases of every layer, 800 hyperparameters, which minimise the
training loss at the end. Each outer step sees other minibatches:

.. math:: w_t^l = w_{t-1}^l - \eta_{t,l}\, m_t^l, \qquad f(\eta) = E(w_T)
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.console import Console

import rfho
from rfho.experiments.parts.image_data import IMAGE_SETS, ImageSplit, load_image_split
from rfho.experiments.parts.minibatch_orders import CONSTANT_RATES, trained_anew
from rfho.experiments.parts.network import Network, accuracy, cross_entropy, random_network
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.pictures import curves, draw_lines, figure, legend_above
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.study import add_tables, tabulated, traced
from rfho.runs.table import Table

MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    train: int = setting(800, "training examples", at_least(10))
    test: int = setting(400, "test examples", at_least(10))
    hidden: int = setting(50, "units in each of the three hidden layers", at_least(1))
    batch: int = setting(100, "examples in a minibatch", at_least(1))
    horizon: int = setting(100, "training steps", at_least(2))
    steps: int = setting(50, "outer steps", at_least(1))
    rate: float = setting(0.03, "with which all schedules start", above(0))
    outer_rate: float = setting(0.04, "rate of Adam on their logarithms", above(0))
    repeats: int = setting(5, "orders of minibatches that results are averaged over", at_least(2))
    seed: int = setting(0, "of everything", at_least(0))


def training(data: ImageSplit, settings: ScheduleSettings) -> rfho.Problem:
    """The network, trained on minibatches with momentum at rates η; judged by its training loss."""

    dynamics = rfho.HeavyBall(
        cross_entropy,
        rate=lambda rates, t: jax.tree.map(lambda schedule: schedule[t], rates),
        momentum=lambda rates, t: MOMENTUM,
        init=initial_network(data, settings),
    )
    stream = rfho.Stream(data.train, min(settings.batch, settings.train), settings.seed)
    return rfho.Problem(dynamics, cross_entropy, stream, data.train, settings.horizon)


def initial_network(data: ImageSplit, settings: ScheduleSettings) -> Network:
    """The network before training."""
    widths = (data.pixels, *[settings.hidden] * 3, len(data.class_names))
    return random_network(widths, seed=settings.seed)


def constant_rates(data: ImageSplit, settings: ScheduleSettings, rate: float) -> Network:
    """The same rate for every step, layer and kind of parameter."""
    flat = jnp.full(settings.horizon, rate, jnp.float32)
    return jax.tree.map(lambda leaf: flat, initial_network(data, settings))


def reordered(stream: rfho.Stream, k: Any) -> rfho.Stream:
    """Other minibatches at every outer step k."""
    return rfho.Stream(stream.data, stream.size, jax.random.fold_in(stream.key, k))


def run(settings: ScheduleSettings, folder: RunFolder, console: Console) -> None:
    """Learns the rates, draws them, and compares them with constant ones."""
    data = load_image_split(settings.data, (settings.train, 10, settings.test), seed=settings.seed)
    problem = training(data, settings)
    rates = constant_rates(data, settings, settings.rate)
    fresh = rfho.Fresh(jax.tree_util.Partial(reordered, problem.train))
    with until_interrupted(folder, console):
        for report in rfho.iterate(
            eqx.tree_at(lambda whole: whole.train, problem, fresh),
            rates,
            optim=optax.adam(settings.outer_rate),
            domain=rfho.Positive(),
            steps=settings.steps,
            run=OuterLoop(folder, "rates"),
        ):
            rates = jax.tree.map(jnp.asarray, report.hyper)
            folder.record({"step": report.step, "training loss": report.value})
    schedules = {
        f"{kind} {number}": np.asarray(layer[key])
        for number, layer in enumerate(rates, start=1)
        for key, kind in (("bias", "biases"), ("weight", "weights"))
    }
    arrays = {name.replace(" ", "-"): rate for name, rate in schedules.items()}
    folder.add_arrays("rates", arrays, "The learned rates, layer by layer.")
    folder.add_picture("rates", draw_rates(schedules), _RATES)
    losses = {"f": traced(folder.history(), "training loss")}
    drawn = curves(losses, x_label="outer step", y_label="training loss after T steps")
    folder.add_picture("training-loss", drawn, "Each outer step sees other minibatches.")
    add_tables(folder, console, {"every-step": compare(problem, rates, data, settings=settings)})


def compare(
    problem: rfho.Problem, rates: Network, data: ImageSplit, *, settings: ScheduleSettings
) -> Table:
    """The learned schedules beside where they started and the best constant rate."""

    def found(rates: Network) -> dict[str, np.ndarray]:
        repeats, seed = settings.repeats, settings.seed + 1
        return trained_anew(problem, rates, accuracy, test=data.test, repeats=repeats, seed=seed)

    constant = {rate: found(constant_rates(data, settings, rate)) for rate in CONSTANT_RATES}
    means = {rate: float(each["loss"].mean()) for rate, each in constant.items()}
    best = min(means, key=lambda rate: np.nan_to_num(means[rate], nan=np.inf))
    start = found(constant_rates(data, settings, settings.rate))
    compared = {
        "learned, every step and layer": found(rates),
        f"where it started, {settings.rate:g}": start,
        f"the best constant rate, {best:.3g}": constant[best],
    }
    return tabulated(
        f"{settings.horizon} steps",
        [
            {"schedule": name, "training loss": each["loss"], **each}
            for name, each in compared.items()
        ],
        {"schedule": None, "training loss": 4, "test accuracy %": 2},
        note=f"{sum(schedule.size for schedule in jax.tree.leaves(rates))} rates, {settings.steps} outer "
        f"steps, momentum {MOMENTUM:g}. The best of {len(CONSTANT_RATES)} constant rates. Mean ± "
        f"standard deviation over {settings.repeats} new orders of minibatches.",
    )


def draw_rates(schedules: dict[str, np.ndarray]) -> Figure:
    """Rates over steps, those of the weights beside those of the biases."""
    drawn, axes = figure(1, 2, width=8.0, height=3.6)
    every = np.stack(list(schedules.values()))
    for axis, kind in zip(axes[0], ("weights", "biases"), strict=True):
        chosen = {
            name.replace(kind, "layer"): rate
            for name, rate in schedules.items()
            if name.startswith(kind)
        }
        draw_lines(axis, chosen)
        axis.set(title=kind, xlabel="inner step t", ylabel="learning rate η", yscale="log")
        axis.set_ylim(0.8 * every.min(), 1.25 * every.max())
    legend_above(drawn, axes[0, 0], 4)
    return drawn


_RATES = "The learned rates of each layer (layer 1 sees the image), for its weights and its biases."

LEARNED_SCHEDULES = Experiment(
    name="learned-schedules",
    title="Learned schedules",
    summary="Learns 800 learning rates, one per step, layer and kind of parameter (arXiv 1502.03492).",
    quick=ScheduleSettings(),
    full=ScheduleSettings(data="mnist", train=10_000, test=5000, batch=200),
    run=run,
)
