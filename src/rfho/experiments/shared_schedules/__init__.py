r"""Shared schedules: seven rates, a momentum and a penalty over a long run, all learned from zero.

Micaelli and Storkey (2021): hyperparameters that many steps share have smoother hypergradients than
one for each step, and are few enough for forward mode, whose memory does not grow with the horizon,

.. math:: Z_t = A_t Z_{t-1} + B_t, \qquad \nabla f = \partial_s E\, Z_T .

Each moves by the sign of its hypergradient, in steps that are halved whenever the sign changes.

What it is compared with: as many random cosine schedules (peak, warm-up, momentum, penalty) as can be
tried in the processor time that the learning took, and the best of a few constant rates.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.parts.convolution import (
    PictureNetwork,
    random_picture_network,
    seen,
    squared_picture_weights,
)
from rfho.experiments.parts.image_data import IMAGE_SETS, ImageSplit, load_image_split
from rfho.experiments.parts.minibatch_orders import CONSTANT_RATES, trained_anew
from rfho.experiments.parts.network import Examples, accuracy, cross_entropy
from rfho.experiments.shared_schedules.contest import (
    Contestant,
    Trial,
    draw_progress,
    draw_winners,
    tried,
)
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, setting
from rfho.runs.stopwatch import clock
from rfho.runs.study import add_tables, tabulated
from rfho.runs.table import Table

Hyper = dict[str, Any]
Rate = Callable[[Hyper, Any], Array]

LARGEST_MOMENTUM = 0.98


@dataclasses.dataclass(frozen=True)
class SharedSettings:
    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    train: int = setting(800, "training examples", at_least(10))
    valid: int = setting(400, "validation examples", at_least(10))
    convolutions: int = setting(0, "convolutional layers", at_least(0))
    filters: int = setting(8, "filters of the first of them, then twice as many each", at_least(1))
    layers: int = setting(3, "fully connected layers before the last", at_least(0))
    hidden: int = setting(50, "units in each of these", at_least(1))
    batch: int = setting(100, "examples in a minibatch", at_least(1))
    horizon: int = setting(200, "training steps", at_least(2))
    steps: int = setting(12, "outer steps", at_least(1))
    blocks: int = setting(7, "rates, one after the other", at_least(1))
    rate_step: float = setting(0.05, "first outer step of the rates", above(0))
    momentum_step: float = setting(0.1, "first outer step of the momentum", above(0))
    decay_step: float = setting(3e-4, "first outer step of the penalty", above(0))
    schedules: int = setting(0, "random cosines; 0: what the learning's time allows", at_least(0))
    repeats: int = setting(5, "orders of minibatches that results are averaged over", at_least(2))
    seed: int = setting(0, "of everything", at_least(0))

    def __post_init__(self) -> None:
        if self.blocks > self.horizon:
            raise SettingsError(f"blocks = {self.blocks}: must be at most horizon = {self.horizon}")


def training(data: ImageSplit, rate: Rate, settings: SharedSettings) -> rfho.Problem:
    """The network, trained on minibatches with momentum and a penalty, judged by validation."""

    def objective(network: PictureNetwork, hyper: Hyper, batch: Examples) -> Array:
        dense, examples = seen(network, batch, data.shape)
        return cross_entropy(dense, hyper, examples)

    def loss(network: PictureNetwork, hyper: Hyper, batch: Examples) -> Array:
        penalty = hyper["decay"] * squared_picture_weights(network)
        return objective(network, hyper, batch) + penalty

    channels = [settings.filters * 2**layer for layer in range(settings.convolutions)]
    widths = [settings.hidden] * settings.layers + [len(data.class_names)]
    init = random_picture_network(data.shape, channels, widths, seed=settings.seed)
    dynamics = rfho.HeavyBall(loss, rate, lambda hyper, t: hyper["momentum"], init=init)
    stream = rfho.Stream(data.train, min(settings.batch, settings.train), settings.seed)
    return rfho.Problem(dynamics, objective, stream, data.valid, settings.horizon)


def in_blocks(horizon: int) -> Rate:
    """The rate at step t where each of ``rates`` holds for a while."""
    return lambda hyper, t: jnp.asarray(rfho.schedules.piecewise(hyper["rates"], horizon)(t))


def by_cosine(horizon: int) -> Rate:
    """The rate at step t of a schedule with a peak and a warm-up."""

    def rate(hyper: Hyper, t: Any) -> Array:
        schedule = rfho.schedules.cosine(hyper["peak"], horizon, warmup=hyper["warmup"])
        return jnp.asarray(schedule(t))

    return rate


def learn(problem: rfho.Problem, settings: SharedSettings) -> Iterator[Trial]:
    """Forward-HO from zero; a trial is what an outer step saw before it moved."""
    lengths = {
        "rates": settings.rate_step,
        "momentum": settings.momentum_step,
        "decay": settings.decay_step,
    }
    domain = {
        "rates": rfho.NonNegative(),
        "momentum": rfho.Box(0.0, LARGEST_MOMENTUM),
        "decay": rfho.NonNegative(),
    }
    method = rfho.ForwardHyperGradient()
    hyper, begin = constant(settings, 0.0, momentum=0.0), clock()
    for report in rfho.iterate(
        problem, hyper, method=method, optim=by_sign(lengths), domain=domain, steps=settings.steps
    ):
        yield Trial(hyper, report.value, clock() - begin)
        hyper, begin = report.hyper, clock()


def by_sign(lengths: dict[str, float]) -> optax.GradientTransformation:
    """Steps of a length, one for each name, against the sign of the hypergradient; halved when it changes."""

    def init(params: Any) -> Any:
        first = {name: jnp.full_like(leaf, lengths[name]) for name, leaf in params.items()}
        return first, jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        length, before = state
        sign = jax.tree.map(jnp.sign, updates)
        length = jax.tree.map(lambda x, s, b: jnp.where(s * b < 0, x / 2, x), length, sign, before)
        return jax.tree.map(lambda x, s: -x * s, length, sign), (length, sign)

    return optax.GradientTransformation(init, update)


def search(contestant: Contestant, seconds: float, settings: SharedSettings) -> Iterator[Trial]:
    """Random cosine schedules, until they have taken as long as the learning."""
    candidates = itertools.islice(cosines(settings), settings.schedules or None)
    for trial in tried(contestant.problem, candidates):
        yield trial
        if contestant.seconds >= seconds and not settings.schedules:
            return


def cosines(settings: SharedSettings) -> Iterator[Hyper]:
    """Random cosine schedules without end: however many are tried, the first ones are the same."""
    generator = np.random.default_rng(settings.seed)
    while True:
        drawn = {
            "peak": np.exp(generator.uniform(np.log(0.003), np.log(3.0))),
            "warmup": generator.uniform(0, 0.3 * settings.horizon),
            "momentum": generator.uniform(0, LARGEST_MOMENTUM),
            "decay": np.exp(generator.uniform(np.log(1e-7), np.log(1e-2))),
        }
        yield {name: jnp.float32(value) for name, value in drawn.items()}


def constant(settings: SharedSettings, rate: float, momentum: float) -> Hyper:
    """The same rate in all blocks, and no penalty."""
    rates = jnp.full(settings.blocks, rate, jnp.float32)
    return {"rates": rates, "momentum": jnp.float32(momentum), "decay": jnp.float32(0)}


def run(settings: SharedSettings, folder: RunFolder, console: Console) -> None:
    """Learns, searches for as long, and tries the best of each with new orders of minibatches."""
    data = load_image_split(settings.data, (settings.train, settings.valid), seed=settings.seed)
    blocks = training(data, in_blocks(settings.horizon), settings)
    cosine = training(data, by_cosine(settings.horizon), settings)
    learned, found, flat = contestants = (
        Contestant("learned from zero", blocks, []),
        Contestant("the best random cosine", cosine, []),
        Contestant("the best constant rate", blocks, []),
    )
    rates = (constant(settings, rate, momentum=0.9) for rate in CONSTANT_RATES)
    with until_interrupted(folder, console):
        for contestant, source in (
            (learned, lambda: learn(blocks, settings)),
            (found, lambda: search(found, learned.seconds, settings)),
            (flat, lambda: tried(blocks, rates)),
        ):
            for trial in source():
                contestant.trials.append(trial)
                folder.record({"schedule": contestant.name} | trial.row())
    drawn = [contestant for contestant in contestants if contestant.sound]
    if not drawn:
        return
    folder.add_picture("progress", draw_progress(drawn), _PROGRESS)
    folder.add_picture("schedules", draw_winners(drawn), _SCHEDULES)
    add_tables(folder, console, {"schedules": compare(drawn, data, settings)})


def compare(contestants: Sequence[Contestant], data: ImageSplit, settings: SharedSettings) -> Table:
    """The best of each with new orders of minibatches, and what it took to find it."""

    def right(network: PictureNetwork, examples: Examples) -> Array:
        return accuracy(*seen(network, examples, data.shape))

    measures = {
        "schedule": None,
        "validation loss": 4,
        "test accuracy %": 2,
        "tried": None,
        "seconds": 1,
    }
    repeats, seed = settings.repeats, settings.seed + 1
    records = []
    for each in contestants:
        hyper = each.best.hyper
        found = trained_anew(each.problem, hyper, right, test=data.test, repeats=repeats, seed=seed)
        cost = {"tried": len(each.trials), "seconds": each.seconds}
        records.append({"schedule": each.name, "validation loss": found["loss"], **found, **cost})
    note = (
        f"Mean ± standard deviation over {repeats} new orders of minibatches. Tried: training "
        "runs, of the first line outer steps. Seconds: of the processor, without compiling."
    )
    return tabulated(f"{settings.horizon} steps", records, measures, note=note)


_PROGRESS = "The lowest validation loss found after how much processor time."
_SCHEDULES = "The best rates of each kind as effective rates: divided by 1 - μ."

SHARED_SCHEDULES = Experiment(
    name="shared-schedules",
    title="Shared schedules",
    summary=(
        "Learns seven rates, a momentum and a penalty over a long run, from zero and in constant "
        "memory (Micaelli and Storkey, 2021)."
    ),
    quick=SharedSettings(),
    full=SharedSettings(
        data="cifar-10",
        train=3500,
        valid=500,
        convolutions=3,
        layers=0,
        batch=32,
        horizon=1500,
        steps=10,
        rate_step=0.02,
    ),
    run=run,
)
