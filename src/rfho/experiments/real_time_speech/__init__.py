r"""Real-time tuning of a deep network for speech frames (arXiv 1703.01785, section 5.3).

A deep network is trained, once, to name what is said in every 10 ms frame of speech, with a second
output for a secondary target that is known in training only,

.. math:: L(w, \lambda) = \ell_{\mathrm{primary}}(w) + \rho\, \ell_{\mathrm{secondary}}(w),
          \qquad \lambda = (\eta, \mu, \rho).

Real-Time HO learns rate η, momentum μ and weight ρ while that one run goes on, from the validation
loss on fresh validation frames every Δ steps: from a sensible start (RTHO), and from η = μ = ρ = 0
(RTHO-NT, "null teacher"). What it is to be compared with: the same start kept, without secondary
target (vanilla), and random search (RS) for as much processor time as RTHO has used. All runs stop
when the validation accuracy has not risen for a while, and are judged at its peak.

The paper's data are TIMIT's phones, which are not free. Without a licensed copy the digit is to be
named; see `rfho.experiments.real_time_speech.data`.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.parts.network import Network, random_network
from rfho.experiments.real_time_speech.data import FRAME_SETS, Frames, FrameSplit, load_frame_split
from rfho.experiments.real_time_speech.network import (
    Hyper,
    accuracy,
    hyper_of,
    loss,
    momentum_of,
    objective,
    rate_of,
    two_heads,
)
from rfho.experiments.real_time_speech.report import (
    METHODS,
    RS,
    RTHO,
    RTHO_NT,
    VANILLA,
    Look,
    Run,
    add_pictures,
    results,
)
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, between, setting
from rfho.runs.stopwatch import clock
from rfho.runs.table import to_rich

DOMAIN = {
    "rate": rfho.NonNegative(),
    "momentum": rfho.Box(0.0, 0.99),
    "rho": rfho.NonNegative(),
}


@dataclasses.dataclass(frozen=True)
class SpeechSettings:
    """The frames, the network, and how its hyperparameters are tuned."""

    data: str = setting("digit-rows", "frames: digit-rows, spoken-digits or timit", FRAME_SETS)
    radius: int = setting(1, "frames to each side that the network sees too", at_least(0))
    layers: int = setting(4, "hidden layers", at_least(1))
    hidden: int = setting(64, "units in each of them", at_least(1))
    batch: int = setting(200, "frames in a minibatch", at_least(1))
    judges: int = setting(1000, "validation frames that an outer step sees", at_least(1))
    horizon: int = setting(2000, "T, inner steps of RTHO at most", at_least(1))
    every: int = setting(20, "Δ, inner steps between outer steps", at_least(1))
    look: int = setting(5, "outer steps between looks at the validation accuracy", at_least(1))
    patience: int = setting(8, "looks without a new best before a run stops", at_least(1))
    discount: float = setting(0.999, "γ, by which the tangent fades per step", between(0, 1))
    rate: float = setting(0.075, "η at the start", above(0))
    momentum: float = setting(0.5, "μ at the start", between(0, 0.99))
    rho: float = setting(1.6, "ρ at the start of RTHO", at_least(0))
    rate_step: float = setting(0.005, "outer rate of Adam on η", above(0))
    momentum_step: float = setting(0.01, "outer rate of Adam on μ", above(0))
    rho_step: float = setting(0.05, "outer rate of Adam on ρ", above(0))
    seeds: int = setting(3, "repetitions: validation sets, networks, minibatches", at_least(1))
    seed: int = setting(0, "the first of them", at_least(0))


class Task(NamedTuple):
    """What all methods of one seed share: the problem, and the frames that judge them."""

    problem: rfho.Problem
    valid: Frames
    test: Frames


class Stop(NamedTuple):
    """Where a training run stands when its accuracy is looked at."""

    step: int
    network: Network
    hyper: Hyper


def run(settings: SpeechSettings, folder: RunFolder, console: Console) -> None:
    """All methods, seed by seed."""
    found: dict[str, list[Run]] = {name: [] for name in METHODS}
    with until_interrupted(folder, console):
        for seed in range(settings.seed, settings.seed + settings.seeds):
            split = load_frame_split(settings.data, radius=settings.radius, seed=seed)
            task = of_split(split, settings, seed=seed)
            for name, one in compare(task, settings, seed=seed):
                found[name].append(one)
                for look in one.looks:
                    row = {"seed": seed, "method": name} | look._asdict()
                    folder.record({key: row[key] for key in row if key != "hyper"} | look.hyper)
                console.print(
                    f"seed {seed}, {name}: validation {one.best.accuracy:.2f} %, test {one.test:.2f} % "
                    f"after {one.seconds:.0f} s, best at step {one.best.step}",
                    highlight=False,
                )
    if not any(found.values()):
        return
    add_pictures(folder, found)
    table = results(found, settings.data, note=_note(settings))
    folder.add_table("accuracy", table)
    console.print(to_rich(table))


def of_split(split: FrameSplit, settings: SpeechSettings, *, seed: int) -> Task:
    """The network, trained with momentum on minibatches of frames."""
    hidden = [settings.hidden] * settings.layers
    widths = (split.train.windows.shape[1], *hidden, split.classes + split.kinds)
    init = two_heads(random_network(widths, seed=seed), split.classes)
    dynamics = rfho.HeavyBall(loss, rate=rate_of, momentum=momentum_of, init=init)
    train = rfho.Stream(split.train, min(settings.batch, len(split.train.primary)), 2 * seed)
    judges = rfho.Stream(split.valid, min(settings.judges, len(split.valid.primary)), 2 * seed + 1)
    problem = rfho.Problem(dynamics, objective, train, judges, settings.horizon)
    return Task(problem, split.valid, split.test)


def compare(task: Task, settings: SpeechSettings, *, seed: int) -> Iterator[tuple[str, Run]]:
    """One run of each method after the other; nothing that is compiled is counted."""
    start = hyper_of(settings.rate, settings.momentum, settings.rho)
    tuner = rfho.Tuner(
        rfho.hyper_gradients.RealTimeHyperGradient(settings.every, settings.discount),
        optax.partition(
            {
                "rate": optax.adam(settings.rate_step),
                "momentum": optax.adam(settings.momentum_step),
                "rho": optax.adam(settings.rho_step),
            },
            {name: name for name in start},
        ),
        DOMAIN,
    )
    plain = hyper_of(settings.rate, settings.momentum, 0.0)
    for walk in (walk_plainly(task, plain, settings), walk_real_time(task, plain, tuner, settings)):
        accuracy(next(walk).network, task.valid)
    yield VANILLA, follow(walk_plainly(task, plain, settings), task, settings)
    real_time = follow(walk_real_time(task, start, tuner, settings), task, settings)
    yield RTHO, real_time
    yield RS, search(task, settings, seed=seed, budget=real_time.seconds)
    nothing = hyper_of(0.0, 0.0, 0.0)
    yield RTHO_NT, follow(walk_real_time(task, nothing, tuner, settings), task, settings)


def walk_plainly(task: Task, hyper: Hyper, settings: SpeechSettings) -> Iterator[Stop]:
    """Training with constant hyperparameters, without end."""
    state = task.problem.init(hyper)
    length = settings.every * settings.look
    for t in itertools.count(0, length):
        state = _advance(task.problem, hyper, state, t + jnp.arange(length))
        yield Stop(t + length, task.problem.dynamics.output(state), hyper)


def walk_real_time(
    task: Task, hyper: Hyper, tuner: rfho.Tuner, settings: SpeechSettings
) -> Iterator[Stop]:
    """Training while RTHO moves the hyperparameters every Δ steps."""
    states = tuner.steps(task.problem, tuner.init(task.problem, hyper))
    for t in range(settings.every, settings.horizon + 1, settings.every):
        state, estimate = next(states)
        if t % (settings.every * settings.look) == 0:
            yield Stop(t, estimate.aux.params, state.hyper)


def follow(
    walk: Iterator[Stop], task: Task, settings: SpeechSettings, *, budget: float = np.inf
) -> Run:
    """Goes along until the validation accuracy has not risen for a while, or time is up.

    Time is that of the processor, so that other programs on the machine do not count.
    """
    looks: list[Look] = []
    best, network = -1, None
    begin = clock()
    for stop in walk:
        right = float(accuracy(stop.network, task.valid))
        spent = clock() - begin
        hyper = {name: float(value) for name, value in stop.hyper.items()}
        looks.append(Look(stop.step, spent, right, hyper))
        if best < 0 or right > looks[best].accuracy:
            best, network = len(looks) - 1, stop.network
        lost = not np.all(np.isfinite(list(hyper.values())))
        if lost or spent > budget or len(looks) - 1 - best >= settings.patience:
            break
    test = float(accuracy(network, task.test))
    return Run(looks[best], test, tuple(looks))


def search(task: Task, settings: SpeechSettings, *, seed: int, budget: float) -> Run:
    """RS: η ~ Exp(0.1), μ ~ U(0, 1), ρ ~ U(0, 4), as long as there is time; at least one trial."""
    rng = np.random.default_rng(seed)
    trials: list[Run] = []
    spent = 0.0
    while not trials or spent < budget:
        hyper = hyper_of(rng.exponential(0.1), rng.uniform(0, 1), rng.uniform(0, 4))
        walk = walk_plainly(task, hyper, settings)
        trial = follow(walk, task, settings, budget=budget - spent)
        looks = tuple(look._replace(seconds=spent + look.seconds) for look in trial.looks)
        trials.append(trial._replace(looks=looks))
        spent = trials[-1].seconds
    best = max(trials, key=lambda trial: trial.best.accuracy)
    looks = tuple(look for trial in trials for look in trial.looks)
    return best._replace(looks=looks, trials=len(trials))


@eqx.filter_jit
def _advance(problem: rfho.Problem, hyper: Hyper, state: Any, steps: Array) -> Any:
    """The steps of those numbers, without tangents."""
    return jax.lax.scan(lambda s, t: (problem.step(s, hyper, t), None), state, steps)[0]


def _note(settings: SpeechSettings) -> str:
    return (
        f"{settings.seeds} seeds, mean ± standard deviation; {settings.layers} hidden layers of "
        f"{settings.hidden}, minibatches of {settings.batch}, RTHO for at most {settings.horizon} steps, "
        f"Δ = {settings.every}, γ = {settings.discount:g}. Compilation is not counted."
    )


REAL_TIME_SPEECH = Experiment(
    name="real-time-speech",
    title="Real-time tuning of a network for speech",
    summary=(
        "Learns rate, momentum and the weight of a secondary target during one training run of a "
        "deep network on speech frames (arXiv 1703.01785, section 5.3)."
    ),
    quick=SpeechSettings(),
    full=SpeechSettings(
        data="spoken-digits",
        radius=5,
        judges=2000,
        horizon=12_000,
        every=100,
        look=2,
        patience=10,
        discount=0.997,
        rho=0.5,
    ),
    run=run,
)
