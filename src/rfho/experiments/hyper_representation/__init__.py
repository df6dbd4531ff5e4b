r"""Hyper-representation: few-shot learning by a representation that episodes share (arXiv 1806.04910).

An episode's ground model is linear and trained by T steps of gradient descent from zero on its few
examples, as a convolutional network :math:`h_\lambda` represents them,

.. math:: w_t^i = w_{t-1}^i - \eta \nabla_w L(w_{t-1}^i, h_\lambda(S_i)), \qquad
          \min_{\lambda, \eta} \mathbb{E}_i\, E(w_T^i, h_\lambda(Q_i)).

The weights of the network are hyperparameters. They reach the episode only through the
representations of its images, so each image is represented once, outside of the inner training:
Reverse-HO gives the hypergradient by the representations, and the chain rule the rest,

.. math:: \nabla_\lambda f = \sum_i (\partial_\lambda h_\lambda(S_i, Q_i))^\top \nabla_{h_i} E.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.hyper_representation.few_shot import (
    DRAWING_SETS,
    Classes,
    Pools,
    draw_episodes,
    load_pools,
    random_representation,
)
from rfho.experiments.hyper_representation.ground_models import (
    Episodes,
    Hyper,
    accuracies,
    estimate,
    last_layer,
    nearest_accuracies,
)
from rfho.experiments.hyper_representation.report import Learned, add_curves, add_episode, results
from rfho.runs.about import INTERRUPTED
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, setting
from rfho.runs.table import Cell, Spread, to_rich

RATES = (0.01, 0.03, 0.1, 0.3)
"""The inner rates among which the untrained representation has the best."""

_LEARNED, _UNTRAINED, _NEAREST = (
    "hyper-representation",
    "untrained representation",
    "nearest drawing, pixel by pixel",
)


@dataclasses.dataclass(frozen=True)
class RepresentationSettings:
    """The episodes, the network that represents them, and how it is learned."""

    data: str = setting("invented", "characters: invented or omniglot", DRAWING_SETS)
    ways: int = setting(5, "classes of an episode", at_least(2))
    shots: tuple[int, ...] = setting(
        (1, 5), "examples per class to learn from; one run for each number", at_least(1)
    )
    queries: int = setting(5, "examples per class that judge, in meta-training", at_least(1))
    channels: tuple[int, ...] = setting(
        (16, 32, 32), "filters of each layer; a layer halves height and width", at_least(1)
    )
    horizon: int = setting(5, "inner steps T", at_least(1))
    rate: float = setting(0.15, "inner rate to begin with; it is learned", above(0))
    episodes: int = setting(8, "fresh episodes at each outer step", at_least(1))
    steps: int = setting(300, "outer steps", at_least(1))
    outer_rate: float = setting(0.003, "rate of Adam on the network and log η", above(0))
    every: int = setting(25, "outer steps from one look at meta-testing to the next", at_least(1))
    tests: int = setting(400, "episodes of meta-testing", at_least(2))
    test_queries: int = setting(15, "examples per class that judge, in meta-testing", at_least(1))
    seed: int = setting(0, "of classes, network and episodes", at_least(0))


def run(settings: RepresentationSettings, folder: RunFolder, console: Console) -> None:
    """Learns a representation for each number of shots, and compares on classes not seen before."""
    pools = load_pools(settings.data, seed=settings.seed)
    _check(settings, pools)
    add_episode(folder, _test_episodes(pools.testing, 1, settings, 1)[0][0])
    rows: list[list[Cell]] = []
    learned: dict[int, Learned] = {}
    for shots in settings.shots:
        if folder.about().status != INTERRUPTED:
            learned[shots] = meta_train(pools, shots, settings, folder=folder, console=console)
            rows += compare(pools, shots, learned[shots].hyper, settings)
    add_curves(folder, learned)
    table = results(rows, settings.data, note=_note(learned, settings))
    folder.add_table("accuracy", table)
    console.print(to_rich(table))


def untrained(settings: RepresentationSettings, rate: float) -> Hyper:
    """A random network, and an inner rate."""
    network = random_representation(settings.channels, seed=settings.seed)
    return {"network": network, "log_rate": jnp.log(jnp.float32(rate))}


def meta_train(
    pools: Pools,
    shots: int,
    settings: RepresentationSettings,
    *,
    folder: RunFolder,
    console: Console,
) -> Learned:
    """Adam on the hypergradients of ever new episodes."""
    problem = last_layer(settings.ways, settings.horizon)
    optim = optax.adam(optax.cosine_decay_schedule(settings.outer_rate, settings.steps, 0.05))
    hyper = untrained(settings, settings.rate)
    slots, values = optim.init(hyper), list[float]()
    learned = Learned(hyper, [], [])
    with until_interrupted(folder, console):
        for step in range(settings.steps + 1):
            if step % settings.every == 0 or step == settings.steps:
                few = max(2, settings.tests // 4)
                right = float(np.mean(judge(pools.testing, hyper, shots, settings, count=few)))
                learned = Learned(hyper, [*learned.steps, step], [*learned.accuracies, right])
                row = {"shots": shots, "step": step, "test accuracy %": right}
                loss = float(np.mean(values)) if values else float("nan")
                rate = float(jnp.exp(hyper["log_rate"]))
                folder.record(row | {"loss on queries": loss, "inner rate": rate})
                console.print(f"{shots} of each class, step {step}: {right:.1f} % right")
                values = []
            episodes = draw_episodes(
                pools.training,
                np.random.default_rng((settings.seed, shots, step)),
                count=settings.episodes,
                ways=settings.ways,
                drawings=shots + settings.queries,
            )
            hyper, slots, value = _outer_step((problem, optim), hyper, slots, episodes, shots)
            values.append(float(value))
    return learned


def judge(
    pool: Classes, hyper: Hyper, shots: int, settings: RepresentationSettings, *, count: int
) -> np.ndarray:
    """The accuracy of the ground model in each of ``count`` test episodes, in percent."""
    problem = last_layer(settings.ways, settings.horizon)
    drawn = _test_episodes(pool, shots, settings, count)
    return np.concatenate([accuracies(problem, hyper, episodes, shots) for episodes in drawn])


def nearest(
    pool: Classes, shots: int, settings: RepresentationSettings, *, count: int
) -> np.ndarray:
    """The accuracy of nearest neighbours on pixels in each of the same episodes, in percent."""
    drawn = _test_episodes(pool, shots, settings, count)
    return np.concatenate([nearest_accuracies(episodes, shots) for episodes in drawn])


def compare(
    pools: Pools, shots: int, hyper: Hyper, settings: RepresentationSettings
) -> list[list[Cell]]:
    """Accuracies on the test episodes, with half of their intervals of 95 % confidence."""
    random = [untrained(settings, rate) for rate in RATES]
    few = max(2, settings.tests // 4)
    seen = [judge(pools.training, each, shots, settings, count=few).mean() for each in random]
    best = random[int(np.argmax(seen))]
    found = {
        _LEARNED: judge(pools.testing, hyper, shots, settings, count=settings.tests),
        _UNTRAINED: judge(pools.testing, best, shots, settings, count=settings.tests),
        _NEAREST: nearest(pools.testing, shots, settings, count=settings.tests),
    }
    rates = {_LEARNED: hyper, _UNTRAINED: best}
    return [
        [
            name,
            shots,
            Spread(float(right.mean()), float(1.96 * right.std(ddof=1) / len(right) ** 0.5)),
            float(jnp.exp(rates[name]["log_rate"])) if name in rates else None,
        ]
        for name, right in found.items()
    ]


def _note(learned: dict[int, Learned], settings: RepresentationSettings) -> str:
    steps = ", ".join(str(each.steps[-1]) for each in learned.values() if each.steps)
    return (
        f"{settings.ways} classes at a time, none of them seen in meta-training; mean and half of the "
        f"95 % confidence interval over {settings.tests} episodes with {settings.test_queries} "
        f"queries per class. T = {settings.horizon}; outer steps of {settings.episodes} episodes: "
        f"{steps or 'none'}. The rate of the untrained representation is the best of {len(RATES)} on "
        "classes of meta-training."
    )


@eqx.filter_jit
def _outer_step(
    fixed: tuple[rfho.Problem, optax.GradientTransformation],
    hyper: Hyper,
    slots: Any,
    episodes: Episodes,
    shots: int,
) -> tuple[Hyper, Any, Array]:
    problem, optim = fixed
    value, hypergradient = estimate(problem, hyper, episodes, shots=shots)
    updates, slots = optim.update(hypergradient, slots, hyper)
    stepped: Hyper = jax.tree.map(jnp.add, hyper, updates)
    return stepped, slots, value


def _test_episodes(
    pool: Classes, shots: int, settings: RepresentationSettings, count: int
) -> list[np.ndarray]:
    """The same for every learner, a few dozen at once."""
    at_once = min(50, max(2, settings.tests // 4))
    begins = range(0, count, at_once)
    return [
        draw_episodes(
            pool,
            np.random.default_rng((settings.seed, begin)),
            count=min(at_once, count - begin),
            ways=settings.ways,
            drawings=shots + settings.test_queries,
        )
        for begin in begins
    ]


def _check(settings: RepresentationSettings, pools: Pools) -> None:
    most = max(settings.shots) + max(settings.queries, settings.test_queries)
    classes, drawings = min(map(len, pools)), pools.training.shape[1]
    if settings.ways > classes or most > drawings:
        raise SettingsError(
            f"ways = {settings.ways} and shots + queries = {most}: {settings.data} has {classes} "
            f"classes with {drawings} drawings each; lower one of them"
        )


HYPER_REPRESENTATION = Experiment(
    name="hyper-representation",
    title="A representation that episodes share",
    summary=(
        "Few-shot classification: learns a convolutional representation as hyperparameters of the "
        "episodes' linear models, and judges it on classes never seen (arXiv 1806.04910)."
    ),
    quick=RepresentationSettings(),
    full=RepresentationSettings(
        data="omniglot",
        channels=(64, 64, 64, 64),
        rate=0.03,
        steps=1500,
        every=100,
        tests=600,
    ),
    run=run,
)
