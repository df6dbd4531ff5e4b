r"""Learned schedules: one learning rate per step and layer, and a few rates over a long run.

Part one (arXiv 1502.03492, section 3.1). A network of four layers is trained for 100 steps. Every
step has a rate for the weights and one for the biases of every layer, 800 hyperparameters, which
minimise the training loss at the end. Each outer step sees other minibatches:

.. math:: w_t^l = w_{t-1}^l - \eta_{t,l}\, m_t^l, \qquad f(\eta) = E(w_T)

Part two (Micaelli and Storkey, 2021). A longer run has seven rates, one after the other, one
momentum and one penalty; shared over many steps they have smooth hypergradients, and forward mode
carries them in constant memory. All nine start from zero and move by the sign of their
hypergradient, in steps that are halved when it turns round. What it is to be compared with: a
cosine schedule, with peak, warm-up, momentum and penalty found by random search for the same money.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.base import Experiment, until_interrupted
from rfho.experiments.image_data import IMAGE_SETS, ImageSplit, Part, load_image_split
from rfho.experiments.network import (
    Examples,
    Network,
    accuracy,
    cross_entropy,
    layer_names,
    like,
    random_network,
    squared_weights,
)
from rfho.experiments.pictures import COLOURS, LINES, curves, figure
from rfho.experiments.run_folder import RunFolder
from rfho.experiments.settings import above, at_least, setting
from rfho.experiments.table import Cell, Column, Spread, Table, make_table, to_rich

Hyper = dict[str, Any]

REVERSE = rfho.hyper_gradients.ReverseHyperGradient()
FORWARD = rfho.hyper_gradients.ForwardHyperGradient()
CONSTANT_RATES = tuple(np.geomspace(0.003, 1.0, 16).tolist())
LARGEST_MOMENTUM = 0.98


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    train: int = setting(800, "training examples", at_least(10))
    valid: int = setting(400, "validation examples", at_least(10))
    test: int = setting(400, "test examples", at_least(10))
    hidden: int = setting(50, "units in each of the three hidden layers", at_least(1))
    batch: int = setting(100, "examples in a minibatch", at_least(1))
    horizon: int = setting(100, "steps of part one", at_least(2))
    steps: int = setting(50, "outer steps of part one", at_least(1))
    rate: float = setting(0.03, "with which all schedules of part one start", above(0))
    outer_rate: float = setting(0.04, "rate of Adam on their logarithms", above(0))
    long_horizon: int = setting(200, "steps of part two", at_least(2))
    long_steps: int = setting(12, "outer steps of part two", at_least(1))
    rate_step: float = setting(0.05, "first outer step of its rates", above(0))
    momentum_step: float = setting(0.1, "first outer step of its momentum", above(0))
    decay_step: float = setting(3e-4, "first outer step of its penalty", above(0))
    blocks: int = setting(7, "rates of part two", at_least(1))
    price: int = setting(14, "plain runs that its hypergradient is taken to cost", at_least(1))
    repeats: int = setting(5, "orders of minibatches that results are averaged over", at_least(2))
    seed: int = setting(0, "of everything", at_least(0))


class Outcome(NamedTuple):
    """What a schedule comes to, once for each order of minibatches: E(w_T), and test accuracy in percent."""

    loss: np.ndarray
    accuracy: np.ndarray


def run(settings: ScheduleSettings, folder: RunFolder, console: Console) -> None:
    """Both parts, one after the other."""
    sizes = (settings.train, settings.valid, settings.test)
    data = load_image_split(settings.data, sizes, seed=settings.seed)
    with until_interrupted(folder, console):
        table = every_step(data, settings, folder)
        folder.add_table("every-step", table)
        console.print(to_rich(table))
        table = shared_blocks(data, settings, folder)
        folder.add_table("shared-blocks", table)
        console.print(to_rich(table))


def every_step(data: ImageSplit, settings: ScheduleSettings, folder: RunFolder) -> Table:
    """Part one: 800 rates, by Reverse-HO, to the training loss."""

    def by_layer(hyper: Hyper, t: Any) -> Network:
        return jax.tree.map(lambda schedule: schedule[t], hyper["rates"])

    problem = training(data, data.train, settings, rate=by_layer, horizon=settings.horizon)
    start = initial_network(data, settings)
    names = layer_names(start)
    flat = jnp.full(settings.horizon, settings.rate, jnp.float32)
    hyper = plain(rates=like(start, [flat] * len(names)), momentum=0.9, decay=0.0)
    losses: list[float] = []
    for report in rfho.iterate(
        problem.redrawn(new_minibatches(problem)),
        hyper,
        optim=optax.adam(settings.outer_rate),
        domain={"rates": rfho.Positive(), "momentum": rfho.Fixed(), "decay": rfho.Fixed()},
        steps=settings.steps,
    ):
        hyper = report.hyper
        losses.append(report.value)
        folder.record({"part": 1, "step": report.step, "training loss": report.value})
    rates = np.stack(jax.tree.leaves(hyper["rates"]))
    folder.add_arrays(
        "rates", {name.replace(" ", "-"): r for name, r in zip(names, rates, strict=True)}, "η:"
    )
    folder.add_picture("rates", _draw_rates(rates, names), _RATES)
    drawn = curves(
        {"f": np.array(losses)}, x_label="outer step", y_label="training loss after T steps"
    )
    folder.add_picture("training-loss", drawn, "Each outer step sees other minibatches.")
    return _every_step_table(problem, data, hyper, settings)


def shared_blocks(data: ImageSplit, settings: ScheduleSettings, folder: RunFolder) -> Table:
    """Part two: seven rates, a momentum and a penalty from zero, by Forward-HO, to the validation loss."""
    horizon = settings.long_horizon

    def by_block(hyper: Hyper, t: Any) -> Array:
        return jnp.asarray(rfho.schedules.piecewise(hyper["rates"], horizon)(t))

    problem = training(data, data.valid, settings, rate=by_block, horizon=horizon)
    hyper = plain(rates=jnp.zeros(settings.blocks, jnp.float32), momentum=0.0, decay=0.0)
    best, lowest = hyper, np.inf
    for report in rfho.iterate(
        problem,
        hyper,
        method=FORWARD,
        optim=by_sign(settings),
        domain={
            "rates": rfho.NonNegative(),
            "momentum": rfho.Box(0.0, LARGEST_MOMENTUM),
            "decay": rfho.NonNegative(),
        },
        steps=settings.long_steps,
    ):
        best, lowest = (hyper, report.value) if report.value < lowest else (best, lowest)
        hyper = report.hyper
        folder.record({"part": 2, "step": report.step, "validation loss": report.value})
    cosine = random_cosine(data, settings)
    folder.add_picture("schedules", _draw_schedules(best, cosine, horizon), _SCHEDULES)
    cosine_problem = training(data, data.valid, settings, rate=by_cosine(horizon), horizon=horizon)
    constant = constant_rate(problem, settings)
    rows = [
        _row(f"{settings.blocks} rates, momentum, penalty", problem, data, best, settings),
        _row("cosine, by random search", cosine_problem, data, cosine, settings),
        _row("the best constant rate, momentum 0.9", problem, data, constant, settings),
    ]
    count = settings.price * settings.long_steps
    note = (
        f"{settings.long_steps} outer steps of {settings.blocks + 2} hyperparameters from zero, and "
        f"{count} random cosine schedules: a hypergradient by Forward-HO is taken to cost "
        f"{settings.price} runs. Mean ± standard deviation over {settings.repeats} new orders of "
        "minibatches."
    )
    return make_table(f"{horizon} steps", _columns("validation loss"), rows, note=note)


def training(
    data: ImageSplit,
    judges: Part,
    settings: ScheduleSettings,
    *,
    rate: Callable[[Hyper, Any], Any],
    horizon: int,
) -> rfho.Problem:
    """The network, trained on minibatches with momentum, at rates that are still open."""

    def loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
        return cross_entropy(network, batch) + hyper["decay"] * squared_weights(network)

    def objective(network: Network, hyper: Hyper, batch: Examples) -> Array:
        return cross_entropy(network, batch)

    dynamics = rfho.HeavyBall(
        loss, rate, lambda hyper, t: hyper["momentum"], init=initial_network(data, settings)
    )
    stream = rfho.Stream(data.train, min(settings.batch, settings.train), settings.seed)
    return rfho.Problem(dynamics, objective, stream, judges, horizon)


def initial_network(data: ImageSplit, settings: ScheduleSettings) -> Network:
    widths = (data.pixels, *[settings.hidden] * 3, len(data.class_names))
    return random_network(widths, seed=settings.seed)


def plain(*, rates: Any, momentum: float, decay: float) -> Hyper:
    return {"rates": rates, "momentum": jnp.float32(momentum), "decay": jnp.float32(decay)}


def new_minibatches(problem: rfho.Problem) -> Callable[[Any], tuple[rfho.Stream, Examples]]:
    """Other minibatches at every outer step."""
    stream, judges = problem.train, problem.valid
    return lambda k: (
        rfho.Stream(stream.data, stream.size, jax.random.fold_in(stream.key, k)),
        judges,
    )


def by_sign(settings: ScheduleSettings) -> optax.GradientTransformation:
    """Steps of a fixed length against the sign of each hypergradient, halved when the sign changes."""
    first = {
        "rates": settings.rate_step,
        "momentum": settings.momentum_step,
        "decay": settings.decay_step,
    }

    def init(params: Any) -> Any:
        lengths = {name: jnp.full_like(leaf, first[name]) for name, leaf in params.items()}
        return lengths, jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        lengths, before = state
        sign = jax.tree.map(jnp.sign, updates)
        shorter = lambda length, s, b: jnp.where(s * b < 0, length / 2, length)  # noqa: E731
        lengths = jax.tree.map(shorter, lengths, sign, before)
        return jax.tree.map(lambda length, s: -length * s, lengths, sign), (lengths, sign)

    return optax.GradientTransformation(init, update)


def by_cosine(horizon: int) -> Callable[[Hyper, Any], Array]:
    """The rate at step t of a schedule with a peak and a warm-up."""

    def rate(hyper: Hyper, t: Any) -> Array:
        schedule = rfho.schedules.cosine(hyper["peak"], horizon, warmup=hyper["warmup"])
        return jnp.asarray(schedule(t))

    return rate


def random_cosine(data: ImageSplit, settings: ScheduleSettings) -> Hyper:
    """The best of as many random cosine schedules as the learned one has cost training runs."""
    horizon, count = settings.long_horizon, settings.price * settings.long_steps
    generator = np.random.default_rng(settings.seed)
    drawn = {
        "peak": np.exp(generator.uniform(np.log(0.003), np.log(3.0), count)),
        "warmup": generator.uniform(0, 0.3 * horizon, count),
        "momentum": generator.uniform(0, LARGEST_MOMENTUM, count),
        "decay": np.exp(generator.uniform(np.log(1e-7), np.log(1e-2), count)),
    }
    problem = training(data, data.valid, settings, rate=by_cosine(horizon), horizon=horizon)
    return _best_of(problem, drawn)


def constant_rate(problem: rfho.Problem, settings: ScheduleSettings) -> Hyper:
    """The best of a few constant rates, with momentum 0.9 and no penalty."""
    rates = np.asarray(CONSTANT_RATES)
    drawn = {
        "rates": np.repeat(rates[:, None], settings.blocks, axis=1),
        "momentum": np.full(len(rates), 0.9),
        "decay": np.zeros(len(rates)),
    }
    return _best_of(problem, drawn)


def outcome(
    problem: rfho.Problem, data: ImageSplit, hyper: Hyper, settings: ScheduleSettings
) -> Outcome:
    """Training with new orders of minibatches."""
    test = jnp.asarray(data.test[0]), jnp.asarray(data.test[1])
    keys = jax.random.split(jax.random.key(settings.seed + 1), settings.repeats)
    loss, right = _trained(problem, jax.tree.map(jnp.asarray, hyper), test, keys)
    return Outcome(np.asarray(loss), 100 * np.asarray(right))


@eqx.filter_jit
def _trained(
    problem: rfho.Problem, hyper: Hyper, test: Examples, keys: Array
) -> tuple[Array, Array]:
    def one(key: Array) -> tuple[Array, Array]:
        fresh = eqx.tree_at(lambda p: p.train.key, problem, key)
        value, network = REVERSE.conclude(fresh, hyper, None)
        return value, accuracy(network, test)

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _losses(problem: rfho.Problem, hyper: Hyper) -> Array:
    return jax.lax.map(lambda one: REVERSE.conclude(problem, one, None)[0], hyper, batch_size=8)


def _best_of(problem: rfho.Problem, drawn: dict[str, np.ndarray]) -> Hyper:
    hyper = {name: jnp.asarray(values, jnp.float32) for name, values in drawn.items()}
    best = int(np.nanargmin(np.asarray(_losses(problem, hyper))))
    return {name: values[best] for name, values in hyper.items()}


def _every_step_table(
    problem: rfho.Problem, data: ImageSplit, hyper: Hyper, settings: ScheduleSettings
) -> Table:
    """The learned schedules beside the best constant rate."""
    names = layer_names(initial_network(data, settings))

    def constant(rate: float) -> Hyper:
        flat = jnp.full(settings.horizon, rate, jnp.float32)
        return plain(rates=like(hyper["rates"], [flat] * len(names)), momentum=0.9, decay=0.0)

    means = [
        float(np.mean(outcome(problem, data, constant(rate), settings).loss))
        for rate in CONSTANT_RATES
    ]
    best = CONSTANT_RATES[int(np.nanargmin(means))]
    rows = [
        _row("learned, every step and layer", problem, data, hyper, settings),
        _row(
            f"where it started, {settings.rate:g}", problem, data, constant(settings.rate), settings
        ),
        _row(f"the best constant rate, {best:.3g}", problem, data, constant(best), settings),
    ]
    note = (
        f"{len(names) * settings.horizon} rates, {settings.steps} outer steps, momentum 0.9. The best "
        f"of {len(CONSTANT_RATES)} constant rates. Mean ± standard deviation over {settings.repeats} "
        "new orders of minibatches."
    )
    return make_table(f"{settings.horizon} steps", _columns("training loss"), rows, note=note)


def _columns(loss: str) -> list[Column]:
    return [Column("schedule"), Column(loss, 4), Column("test accuracy %", 2)]


def _row(
    name: str, problem: rfho.Problem, data: ImageSplit, hyper: Hyper, settings: ScheduleSettings
) -> list[Cell]:
    found = outcome(problem, data, hyper, settings)
    return [name, *(Spread(float(x.mean()), float(x.std(ddof=1))) for x in found)]


def _draw_rates(rates: np.ndarray, names: list[str]) -> Any:
    drawn, axes = figure(1, 2, width=8.0, height=3.6)
    for axis, kind in zip(axes[0], ("weights", "biases"), strict=True):
        chosen = [(n, r) for n, r in zip(names, rates, strict=True) if n.startswith(kind)]
        for number, (name, values) in enumerate(chosen):
            layer = name.removeprefix(f"{kind} ")
            axis.plot(values, LINES[number % 4], color=COLOURS[number], label=f"layer {layer}")
        axis.set(title=kind, xlabel="inner step t", ylabel="learning rate η", yscale="log")
        axis.set_ylim(0.8 * rates.min(), 1.25 * rates.max())
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return drawn


def _draw_schedules(blocks: Hyper, cosine: Hyper, horizon: int) -> Any:
    drawn, axes = figure()
    axis, steps = axes[0, 0], jnp.arange(horizon)
    learned = jax.vmap(rfho.schedules.piecewise(jnp.asarray(blocks["rates"]), horizon))(steps)
    found = jax.vmap(lambda t: by_cosine(horizon)(cosine, t))(steps)
    for number, (name, rates, hyper) in enumerate(
        (("learned from zero", learned, blocks), ("random search", found, cosine))
    ):
        label = f"{name}: μ = {float(hyper['momentum']):.2f}, ρ = {float(hyper['decay']):.1e}"
        speed = np.asarray(rates) / (1 - float(hyper["momentum"]))
        axis.plot(np.asarray(steps), speed, LINES[number], color=COLOURS[number], label=label)
    axis.set(xlabel="inner step t", ylabel="effective rate η / (1 - μ)")
    axis.legend(frameon=False)
    return drawn


_RATES = "The learned rates of each layer (layer 1 sees the image), for its weights and its biases."
_SCHEDULES = "The seven learned rates and the best random cosine schedule, as effective rates: divided by 1 - μ."

LEARNED_SCHEDULES = Experiment(
    name="learned-schedules",
    title="Learned schedules",
    summary=(
        "Learns 800 learning rates, one per step and layer (arXiv 1502.03492), then seven rates, a "
        "momentum and a penalty over a longer run, from zero (Micaelli and Storkey, 2021)."
    ),
    quick=ScheduleSettings(),
    full=ScheduleSettings(
        data="mnist",
        train=10_000,
        valid=5000,
        test=5000,
        batch=200,
        long_horizon=2000,
        long_steps=20,
    ),
    run=run,
)
