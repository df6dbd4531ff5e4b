r"""Forward or reverse? Time and memory by the number of hyperparameters, and of parameters.

Forward-HO pushes m tangents along with training, Reverse-HO goes back through it once (arXiv
1703.01785, section 3), so that in plain training runs, by counting gradients,

.. math:: \text{forward} \approx 1 + 1.4\, m, \qquad \text{reverse} \approx 3 \text{ to } 4,

and they cross at two or three hyperparameters. Memory is the other half of the choice: m tangents
against a trajectory, or what a checkpoint policy leaves of one. Both are measured here, in the
run, beside the forecasts by which `rfho.AutoHyperGradient` chooses. The m hyperparameters are
weights of as many equal groups of training examples.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.parts.image_data import IMAGE_SETS, load_image_split
from rfho.experiments.parts.network import Network, cross_entropy, logits, random_network
from rfho.experiments.time_memory.report import (
    CAPTION,
    FORWARD,
    HYPERS,
    PARAMS,
    REVERSE,
    Row,
    draw,
    tables,
)
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
)
from rfho.runs.experiment import Experiment
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, at_least, setting
from rfho.runs.stopwatch import compiled, ratios, seconds, whole_run
from rfho.runs.study import Study, add_tables

Batch = tuple[Array, Array, Array]


@dataclasses.dataclass(frozen=True)
class CostSettings:
    """What is trained, and the sizes at which it is measured."""

    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    train: int = setting(200, "training examples, all in each step", at_least(10))
    hidden: int = setting(32, "hidden units while hyperparameters vary", at_least(1))
    horizon: int = setting(36, "inner steps T", at_least(4))
    hypers: tuple[int, ...] = setting((1, 4, 30), "numbers m of them", at_least(1))
    widths: tuple[int, ...] = setting((4, 32), "hidden units that vary", at_least(1))
    few: int = setting(4, "hyperparameters while hidden units vary", at_least(1))
    slots: int = setting(4, "states that Binomial keeps", at_least(1))
    every: int = setting(9, "Δ: steps between real-time hypergradients", at_least(1))
    rounds: int = setting(3, "in which all methods are timed in turn", at_least(1))
    longest: float = setting(10.0, "seconds; slower ones are only forecast", at_least(0))
    seed: int = setting(0, "of examples and initial network", at_least(0))


def run(settings: CostSettings, folder: RunFolder, console: Console) -> None:
    """Both sweeps; each point is compiled, weighed and timed beside plain training."""
    largest = max(*settings.hypers, settings.few)
    if largest > settings.train:
        raise SettingsError(
            f"hypers, few up to {largest}: each is the weight of a group of examples, and there are "
            f"{settings.train}; raise train"
        )
    sweeps = {
        HYPERS: [(m, settings.hidden) for m in settings.hypers],
        PARAMS: [(settings.few, width) for width in settings.widths],
    }

    def at_point(point: tuple[int, int]) -> Iterator[Row]:
        problem, hyper = training(settings, *point)
        sizes = {HYPERS: point[0], PARAMS: optax.tree.size(problem.init(hyper).params)}
        for costs, sweep in itertools.product(measure(problem, hyper, settings), sweeps):
            if point in sweeps[sweep]:
                row = {"sweep": sweep, "size": sizes[sweep], **costs}
                folder.record(row)
                yield row

    points = dict.fromkeys(itertools.chain(*sweeps.values()))
    shown = {"sweep": None, "size": None, "method": None, "time": 2, "memory": None}
    rows = Study({}, points, at_point, shown).carry_out(folder, console)
    if rows:
        held = {
            HYPERS: f"{settings.hidden} hidden units, T = {settings.horizon}",
            PARAMS: f"m = {settings.few}, T = {settings.horizon}",
        }
        folder.add_picture("time-memory", draw(rows, held), CAPTION)
        add_tables(folder, console, tables(rows))


def training(settings: CostSettings, m: int, width: int) -> tuple[rfho.Problem, Array]:
    """A network with one hidden layer and weighted examples; λ = 0 are equal weights."""
    data = load_image_split(settings.data, (settings.train, 100, 100), seed=settings.seed)
    inputs, labels = (jnp.asarray(part) for part in data.train)
    groups = jnp.arange(settings.train) * m // settings.train

    def loss(network: Network, hyper: Array, batch: Batch) -> Array:
        inputs, labels, groups = batch
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(network, inputs), labels)
        return jnp.mean(2 * jax.nn.sigmoid(hyper)[groups] * losses)

    dynamics = rfho.HeavyBall(
        loss,
        rate=lambda hyper, t: 0.1,
        momentum=lambda hyper, t: 0.9,
        init=random_network((data.pixels, width, 10), seed=settings.seed),
    )
    train = (inputs, labels, groups)
    problem = rfho.Problem(dynamics, cross_entropy, train, data.valid, settings.horizon)
    return problem, jnp.zeros(m, jnp.float32)


def methods(settings: CostSettings) -> dict[str, AbstractHyperGradient]:
    """Reverse mode under five policies, forward mode, and real-time, at least once in a training run."""
    every = min(settings.every, settings.horizon)
    reverse = {
        REVERSE: rfho.StoreAll(),
        "reverse, Replay": rfho.Replay(),
        "reverse, Recompute": rfho.Recompute(),
        f"reverse, Binomial({settings.slots})": rfho.Binomial(settings.slots),
        "reverse, Anchored": rfho.Anchored(),
    }
    return {
        **{name: ReverseHyperGradient(policy) for name, policy in reverse.items()},
        FORWARD: ForwardHyperGradient(),
        f"real-time, Δ = {every}": RealTimeHyperGradient(every),
    }


def measure(problem: rfho.Problem, hyper: Array, settings: CostSettings) -> Iterator[Row]:
    """One row per method: time in plain training runs and bytes beyond plain, and both forecasts."""
    plain = compiled(rfho.train, problem, hyper)
    seconds(plain)
    limit = settings.longest / seconds(plain)
    found = methods(settings)
    forecasts = {name: expected(method, problem, hyper) for name, method in found.items()}
    programs = {
        name: compiled(whole_run(found[name]), problem, hyper)
        for name, forecast in forecasts.items()
        if forecast is None or forecast.time <= limit
    }
    times = ratios(plain, programs, settings.rounds)
    for name, forecast in forecasts.items():
        yield {
            "method": name,
            "time": times.get(name),
            "memory": programs[name].memory - plain.memory if name in programs else None,
            "forecast time": None if forecast is None else float(forecast.time),
            "forecast memory": None if forecast is None else forecast.memory - plain.memory,
        }


def expected(
    method: AbstractHyperGradient, problem: rfho.Problem, hyper: Array
) -> rfho.choice.Forecast | None:
    """What rfho forecasts without compiling anything; None where it does not."""
    try:
        return rfho.AutoHyperGradient(memory_limit=1e18).check(problem, hyper, method)
    except TypeError:
        return None


TIME_MEMORY = Experiment(
    name="time-memory",
    title="Forward or reverse?",
    summary=(
        "Measures time and memory of forward and reverse mode with all checkpoint policies, by the "
        "number of hyperparameters and of parameters, beside their forecasts (arXiv 1703.01785)."
    ),
    quick=CostSettings(),
    full=CostSettings(
        train=1000,
        hidden=16,
        horizon=24,
        hypers=(1, 3, 30, 1000),
        widths=(4, 128),
        every=6,
        rounds=2,
        longest=60.0,
    ),
    run=run,
)
