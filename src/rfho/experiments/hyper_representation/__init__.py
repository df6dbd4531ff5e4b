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
import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float
from rich.console import Console

import rfho
from rfho.experiments.hyper_representation.few_shot import (
    DRAWING_SETS,
    Classes,
    Episodes,
    Pools,
    draw_episodes,
    labels,
    load_pools,
    nearest,
    represent_episodes,
)
from rfho.experiments.hyper_representation.report import add_curves, add_episode
from rfho.experiments.parts.convolution import random_convolutions
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, setting
from rfho.runs.study import Record, Study, add_tables, grouped, tabulated
from rfho.runs.table import Spread

Hyper = dict[str, Any]
"""``network`` and ``log_rate``; of `last_layer` ``features`` and ``log_rate``."""

COLUMNS = {"learner": None, "examples per class": 0, "test accuracy %": 1, "inner rate": None}
RATES = (0.01, 0.03, 0.1, 0.3)
"""The inner rates among which the untrained representation has the best."""


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


@functools.cache
def last_layer(ways: int, horizon: int) -> rfho.Problem:
    """The ground models of any number of episodes side by side; what represents them is λ."""

    def loss(heads: Array, hyper: Hyper, batch: None) -> Array:
        # Episodes share no parameters: the gradient of the sum is that of each.
        return jnp.sum(_losses(heads, hyper["features"].support))

    def query_loss(heads: Array, hyper: Hyper, batch: None) -> Array:
        return jnp.mean(_losses(heads, hyper["features"].query))

    def blank(hyper: Hyper) -> Array:
        episodes, _, width = hyper["features"].support.shape
        return jnp.zeros((episodes, width + 1, ways), hyper["features"].support.dtype)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(jnp.exp(hyper["log_rate"])), blank)
    return rfho.Problem(dynamics, query_loss, None, None, horizon)


def estimate(
    problem: rfho.Problem, hyper: Hyper, episodes: Episodes, *, shots: int
) -> tuple[Array, Hyper]:
    """f on these episodes, and its hypergradient by the network and the logarithm of the rate."""
    features, pull_back = jax.vjp(
        lambda network: represent_episodes(network, episodes, shots), hyper["network"]
    )
    inner = {"features": features, "log_rate": hyper["log_rate"]}
    found = rfho.hyper_gradient(problem, inner)
    (by_network,) = pull_back(found.hypergradient["features"])
    return found.value, {"network": by_network, "log_rate": found.hypergradient["log_rate"]}


@eqx.filter_jit
def accuracies(
    problem: rfho.Problem, hyper: Hyper, episodes: Episodes, shots: int
) -> Float[Array, " episodes"]:
    """Of the trained ground model in each episode, in percent; ``hyper`` as in `estimate`."""
    features = represent_episodes(hyper["network"], episodes, shots)
    inner = {"features": features, "log_rate": hyper["log_rate"]}
    logits = _logits(rfho.train(problem, inner).params, features.query)
    right = jnp.argmax(logits, axis=2) == labels(*logits.shape[1:])
    return 100 * jnp.mean(right.astype(logits.dtype), axis=1)


def _losses(heads: Array, rows: Float[Array, "episodes n width"]) -> Float[Array, " episodes"]:
    """The mean cross-entropy in each episode; rows are sorted by class."""
    logits = _logits(heads, rows)
    expected = jnp.broadcast_to(labels(*logits.shape[1:]), logits.shape[:2])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, expected), axis=1)


def _logits(heads: Array, rows: Array) -> Float[Array, "episodes n ways"]:
    return rows @ heads[:, :-1] + heads[:, -1:]


def untrained(settings: RepresentationSettings, rate: float) -> Hyper:
    """A random network, and an inner rate."""
    network = random_convolutions((1, *settings.channels), seed=settings.seed)
    return {"network": network, "log_rate": jnp.log(jnp.float32(rate))}


def meta_train(
    pool: Classes, shots: int, settings: RepresentationSettings
) -> Iterator[tuple[int, Hyper, float]]:
    """Adam on the hypergradients of ever new episodes: now and then the step, λ and the mean loss since."""
    problem = last_layer(settings.ways, settings.horizon)
    optim = optax.adam(optax.cosine_decay_schedule(settings.outer_rate, settings.steps, 0.05))
    hyper = untrained(settings, settings.rate)
    slots, losses = optim.init(hyper), list[float]()
    for step in range(settings.steps + 1):
        if step % settings.every == 0 or step == settings.steps:
            yield step, hyper, float(np.mean(losses)) if losses else float("nan")
            losses = []
        episodes = draw_episodes(
            pool,
            np.random.default_rng((settings.seed, shots, step)),
            count=settings.episodes,
            ways=settings.ways,
            drawings=shots + settings.queries,
        )
        hyper, slots, loss = _outer_step((problem, optim), hyper, slots, episodes, shots)
        losses.append(float(loss))


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


def run(settings: RepresentationSettings, folder: RunFolder, console: Console) -> None:
    """Learns a representation for each number of shots, and compares on classes not seen before."""
    pools = load_pools(settings.data, seed=settings.seed)
    most = max(settings.shots) + max(settings.queries, settings.test_queries)
    if not pools.have(settings.ways, most):
        raise SettingsError(
            f"ways = {settings.ways} and shots + queries = {most}: {settings.data} has {min(map(len, pools))} "
            f"classes with {pools.training.shape[1]} drawings each; lower one of them"
        )
    add_episode(folder, testing_episodes(pools.testing, 1, settings, 1)[0][0])

    def on_shots(shots: int) -> Iterator[Record]:
        learned, few = untrained(settings, settings.rate), max(2, settings.tests // 4)
        with until_interrupted(folder, console):
            for step, learned, loss in meta_train(pools.training, shots, settings):
                right = float(np.mean(judge(pools.testing, learned, shots, settings, count=few)))
                row = {"shots": shots, "step": step, "test accuracy %": right}
                rate = float(jnp.exp(learned["log_rate"]))
                folder.record(row | {"loss on queries": loss, "inner rate": rate})
                console.print(f"{shots} of each class, step {step}: {right:.1f} % right")
        yield from compare(pools, shots, learned, settings)

    records = Study({}, settings.shots, on_shots, COLUMNS).carry_out(folder, console)
    add_curves(folder)
    looked = grouped(folder.history(), "shots").values()
    steps = ", ".join(str(rows[-1]["step"]) for rows in looked)
    note = (
        f"{settings.ways} classes at a time, none of them seen in meta-training; mean and half of the "
        f"95 % confidence interval over {settings.tests} episodes with {settings.test_queries} "
        f"queries per class. T = {settings.horizon}; outer steps of {settings.episodes} episodes: "
        f"{steps or 'none'}. The rate of the untrained representation is the best of {len(RATES)} on "
        "classes of meta-training."
    )
    title = f"Few-shot classification of new classes: {settings.data}"
    add_tables(folder, console, {"accuracy": tabulated(title, records, COLUMNS, note=note)})


def compare(
    pools: Pools, shots: int, learned: Hyper, settings: RepresentationSettings
) -> Iterator[Record]:
    """Accuracies on the test episodes, with half of their intervals of 95 % confidence."""
    few = max(2, settings.tests // 4)
    random = [untrained(settings, rate) for rate in RATES]
    seen = [judge(pools.training, each, shots, settings, count=few).mean() for each in random]
    best = random[int(np.argmax(seen))]
    for learner, hyper in {
        "hyper-representation": learned,
        "untrained representation": best,
        "nearest drawing, pixel by pixel": None,
    }.items():
        right = judge(pools.testing, hyper, shots, settings, count=settings.tests)
        half = 1.96 * right.std(ddof=1) / len(right) ** 0.5
        yield {
            "learner": learner,
            "examples per class": shots,
            "test accuracy %": Spread(float(right.mean()), float(half)),
            "inner rate": float(jnp.exp(hyper["log_rate"])) if hyper else None,
        }


def judge(
    pool: Classes, hyper: Hyper | None, shots: int, settings: RepresentationSettings, *, count: int
) -> np.ndarray:
    """The accuracy in each of ``count`` test episodes in percent; without λ by nearest neighbours."""
    problem = last_layer(settings.ways, settings.horizon)
    of = nearest if hyper is None else functools.partial(accuracies, problem, hyper)
    drawn = testing_episodes(pool, shots, settings, count)
    return np.concatenate([of(episodes, shots) for episodes in drawn])


def testing_episodes(
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


HYPER_REPRESENTATION = Experiment(
    name="hyper-representation",
    title="A representation that episodes share",
    summary=(
        "Few-shot classification: learns a convolutional representation as hyperparameters of the "
        "episodes' linear models, and judges it on classes never seen (arXiv 1806.04910)."
    ),
    quick=RepresentationSettings(),
    full=RepresentationSettings(
        data="omniglot", channels=(64, 64, 64, 64), rate=0.03, steps=1500, every=100, tests=600
    ),
    run=run,
)
