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
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float
from rich.console import Console

import rfho
from rfho.experiments.parts.network import Network, random_network
from rfho.experiments.real_time_speech.data import FRAME_SETS, Frames, FrameSplit, load_frame_split
from rfho.experiments.real_time_speech.network import accuracy, cross_entropy, logits, two_heads
from rfho.experiments.real_time_speech.report import (
    COLUMNS,
    METHODS,
    RS,
    RTHO,
    RTHO_NT,
    VANILLA,
    add_pictures,
    paired,
)
from rfho.runs.experiment import Experiment
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, between, setting
from rfho.runs.stopwatch import clock
from rfho.runs.study import Record, Study, add_tables, gained

Hyper = dict[str, Array]
"""``rate``, ``momentum`` and ``rho``, a number each."""

Look = dict[str, int | float]
"""What is seen of a run: inner ``step``, processor ``seconds``, ``accuracy`` in percent, and λ."""

DOMAIN = {"rate": rfho.NonNegative(), "momentum": rfho.Box(0.0, 0.99), "rho": rfho.NonNegative()}


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

    def __post_init__(self) -> None:
        if self.horizon < (first := self.every * self.look):
            raise SettingsError(f"horizon = {self.horizon}: must be every * look = {first} or more")


def loss(network: Network, hyper: Hyper, batch: Frames) -> Float[Array, ""]:
    """L = primary + ρ secondary."""
    primary, secondary = logits(network, batch.windows)
    of_secondary = cross_entropy(secondary, batch.secondary)
    return cross_entropy(primary, batch.primary) + hyper["rho"] * of_secondary


def objective(network: Network, hyper: Hyper, batch: Frames) -> Float[Array, ""]:
    """E: the primary loss alone, on validation frames."""
    return cross_entropy(logits(network, batch.windows)[0], batch.primary)


class Task(NamedTuple):
    """What all methods of one seed share: the problem, RTHO, and the frames that judge."""

    problem: rfho.Problem
    tuner: rfho.Tuner
    valid: Frames
    test: Frames


class Stop(NamedTuple):
    """Where a training run stands when its accuracy is looked at."""

    step: int
    network: Network
    hyper: Hyper


def training(split: FrameSplit, settings: SpeechSettings, *, seed: int) -> Task:
    """The network, trained with momentum on minibatches of frames."""
    hidden = [settings.hidden] * settings.layers
    widths = (split.train.windows.shape[1], *hidden, split.classes + split.kinds)
    init = two_heads(random_network(widths, seed=seed), split.classes)
    dynamics = rfho.HeavyBall(loss, rate=_rate, momentum=_momentum, init=init)
    train = rfho.Stream(split.train, min(settings.batch, len(split.train.primary)), 2 * seed)
    judges = rfho.Stream(split.valid, min(settings.judges, len(split.valid.primary)), 2 * seed + 1)
    problem = rfho.Problem(dynamics, objective, train, judges, settings.horizon)
    return Task(problem, real_time(settings), split.valid, split.test)


def real_time(settings: SpeechSettings) -> rfho.Tuner:
    """RTHO, by Adam with a rate of its own for each hyperparameter."""
    steps = {
        "rate": settings.rate_step,
        "momentum": settings.momentum_step,
        "rho": settings.rho_step,
    }
    return rfho.Tuner(
        rfho.RealTimeHyperGradient(settings.every, settings.discount),
        optax.partition(
            {name: optax.adam(step) for name, step in steps.items()}, {name: name for name in steps}
        ),
        DOMAIN,
    )


def compare(task: Task, settings: SpeechSettings, *, seed: int) -> Iterator[Record]:
    """One run of each method after the other; nothing that is compiled is counted."""
    plain, start = (hyper_of(settings.rate, settings.momentum, rho) for rho in (0.0, settings.rho))
    walks = {
        VANILLA: walk_plainly(task, plain, settings),
        RTHO: walk_real_time(task, start, settings),
        RTHO_NT: walk_real_time(task, hyper_of(0.0, 0.0, 0.0), settings),
    }
    for walk in (walk_plainly(task, plain, settings), walk_real_time(task, plain, settings)):
        accuracy(next(walk).network, task.valid)
    for name, walk in walks.items():
        found = follow(walk, task, settings)
        yield {"method": name} | found
        if name == RTHO:
            budget = found["looks"][-1]["seconds"]
            yield {"method": RS} | search(task, settings, seed=seed, budget=budget)


def hyper_of(rate: float, momentum: float, rho: float) -> Hyper:
    """λ = (η, μ, ρ)."""
    named = {"rate": rate, "momentum": momentum, "rho": rho}
    return {name: jnp.float32(value) for name, value in named.items()}


def walk_plainly(task: Task, hyper: Hyper, settings: SpeechSettings) -> Iterator[Stop]:
    """Training with constant hyperparameters, without end."""
    state = task.problem.init(hyper)
    length = settings.every * settings.look
    for t in itertools.count(0, length):
        state = _advance(task.problem, hyper, state, t + jnp.arange(length))
        yield Stop(t + length, task.problem.dynamics.output(state), hyper)


def walk_real_time(task: Task, hyper: Hyper, settings: SpeechSettings) -> Iterator[Stop]:
    """Training while RTHO moves the hyperparameters every Δ steps."""
    states = task.tuner.steps(task.problem, task.tuner.init(task.problem, hyper))
    for t in range(settings.every, settings.horizon + 1, settings.every):
        state, estimate = next(states)
        if t % (settings.every * settings.look) == 0:
            yield Stop(t, estimate.aux.params, state.hyper)


def follow(
    walk: Iterator[Stop], task: Task, settings: SpeechSettings, *, budget: float = np.inf
) -> dict[str, Any]:
    """Goes along until the validation accuracy has not risen for a while, or time is up.

    Time is that of the processor, so that other programs on the machine do not count.
    """
    looks: list[Look] = []
    best, network = -1, ()
    begin = clock()
    for stop in walk:
        right, spent = float(accuracy(stop.network, task.valid)), clock() - begin
        hyper = {name: float(value) for name, value in stop.hyper.items()}
        looks.append({"step": stop.step, "seconds": spent, "accuracy": right} | hyper)
        if best < 0 or right > looks[best]["accuracy"]:
            best, network = len(looks) - 1, stop.network
        lost = not np.all(np.isfinite(list(hyper.values())))
        if lost or spent > budget or len(looks) - 1 - best >= settings.patience:
            break
    return as_record(looks, test=float(accuracy(network, task.test)), trials=1)


def search(task: Task, settings: SpeechSettings, *, seed: int, budget: float) -> dict[str, Any]:
    """RS: η ~ Exp(0.1), μ ~ U(0, 1), ρ ~ U(0, 4), as long as there is time; at least one trial."""
    rng = np.random.default_rng(seed)
    trials: list[dict[str, Any]] = []
    looks: list[Look] = []
    spent = 0.0
    while not trials or spent < budget:
        hyper = hyper_of(rng.exponential(0.1), rng.uniform(0, 1), rng.uniform(0, 4))
        trials.append(
            follow(walk_plainly(task, hyper, settings), task, settings, budget=budget - spent)
        )
        looks += [look | {"seconds": spent + look["seconds"]} for look in trials[-1]["looks"]]
        spent = looks[-1]["seconds"]
    best = max(trials, key=lambda trial: trial["validation frames %"])
    return as_record(looks, test=best["test frames %"], trials=len(trials))


def as_record(looks: Sequence[Look], *, test: float, trials: int) -> dict[str, Any]:
    """How a method fared: at its peak, in percent, and what it took to get there."""
    return {
        "test frames %": test,
        "validation frames %": max(look["accuracy"] for look in looks),
        "processor minutes": looks[-1]["seconds"] / 60,
        "training runs": float(trials),
        "looks": looks,
    }


def run(settings: SpeechSettings, folder: RunFolder, console: Console) -> None:
    """All methods, seed by seed."""

    def on_seed(seed: int) -> Iterator[Record]:
        split = load_frame_split(settings.data, radius=settings.radius, seed=seed)
        for found in compare(training(split, settings, seed=seed), settings, seed=seed):
            for look in found["looks"]:
                folder.record({"seed": seed, "method": found["method"], **look})
            yield found

    study = Study(METHODS, range(settings.seed, settings.seed + settings.seeds), on_seed, COLUMNS)
    records = study.carry_out(folder, console)
    if not records:
        return
    add_pictures(folder, records)
    records = gained(records, "test frames %", over=RS, as_name="more than RS")
    note = (
        f"{settings.seeds} seeds, mean ± standard deviation; {settings.layers} hidden layers of "
        f"{settings.hidden}, minibatches of {settings.batch}, RTHO for at most {settings.horizon} steps, "
        f"Δ = {settings.every}, γ = {settings.discount:g}. Compilation is not counted."
    )
    table = study.table(f"Frames named rightly: {settings.data}", records, note)
    add_tables(folder, console, {"accuracy": table, "paired": paired(records)})


@eqx.filter_jit
def _advance(problem: rfho.Problem, hyper: Hyper, state: Any, steps: Array) -> Any:
    """The steps of those numbers, without tangents."""
    return jax.lax.scan(lambda s, t: (problem.step(s, hyper, t), None), state, steps)[0]


def _rate(hyper: Hyper, t: Any) -> Array:
    return hyper["rate"]


def _momentum(hyper: Hyper, t: Any) -> Array:
    return hyper["momentum"]


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
