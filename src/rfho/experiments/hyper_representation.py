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
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, UInt8
from rich.console import Console

import rfho
from rfho.experiments.about import INTERRUPTED
from rfho.experiments.base import Experiment, until_interrupted
from rfho.experiments.few_shot import (
    DRAWING_SETS,
    Classes,
    Features,
    Pools,
    draw_episodes,
    load_pools,
    random_representation,
    represent_episodes,
)
from rfho.experiments.pictures import curves, image_grid
from rfho.experiments.run_folder import RunFolder
from rfho.experiments.settings import SettingsError, above, at_least, setting
from rfho.experiments.table import Cell, Column, Spread, Table, make_table, to_rich

Hyper = dict[str, Any]
Episodes = UInt8[Array | np.ndarray, "episodes ways drawings height width"]

RATES = (0.01, 0.03, 0.1, 0.3)
"""The inner rates among which the untrained representation has the best."""

_LEARNED, _UNTRAINED, _NEAREST = (
    "hyper-representation",
    "untrained representation",
    "nearest drawing, pixel by pixel",
)


@dataclasses.dataclass(frozen=True)
class RepresentationSettings:
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


class Learned(NamedTuple):
    """What meta-training with some number of shots came to.

    Attributes:
        hyper: the network and the logarithm of the inner rate.
        steps: the outer steps after which meta-testing was looked at, 0 among them.
        accuracies: in percent, on the first quarter of the test episodes.
    """

    hyper: Hyper
    steps: list[int]
    accuracies: list[float]


def run(settings: RepresentationSettings, folder: RunFolder, console: Console) -> None:
    """Learns a representation for each number of shots, and compares on classes not seen before."""
    pools = load_pools(settings.data, seed=settings.seed)
    _check(settings, pools)
    _add_episode(folder, pools, settings)
    rows: list[list[Cell]] = []
    learned: dict[int, Learned] = {}
    for shots in settings.shots:
        if folder.about().status != INTERRUPTED:
            learned[shots] = meta_train(pools, shots, settings, folder=folder, console=console)
            rows += compare(pools, shots, learned[shots].hyper, settings)
    _add_curves(folder, learned)
    table = results(rows, learned, settings)
    folder.add_table("accuracy", table)
    console.print(to_rich(table))


def last_layer(ways: int, horizon: int) -> rfho.Problem:
    """The ground models of any number of episodes side by side; what represents them is λ.

    ``hyper`` has the leaves ``support`` and ``query``, as `Features`, and ``log_rate``.
    """

    def loss(heads: Array, hyper: Hyper, batch: None) -> Array:
        # Episodes share no parameters: the gradient of the sum is that of each.
        return jnp.sum(_losses(heads, hyper["support"]))

    def query_loss(heads: Array, hyper: Hyper, batch: None) -> Array:
        return jnp.mean(_losses(heads, hyper["query"]))

    def blank(hyper: Hyper) -> Array:
        episodes, _, width = hyper["support"].shape
        return jnp.zeros((episodes, width + 1, ways), hyper["support"].dtype)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(jnp.exp(hyper["log_rate"])), blank)
    return rfho.Problem(dynamics, query_loss, None, None, horizon)


def estimate(
    problem: rfho.Problem, hyper: Hyper, episodes: Episodes, *, shots: int
) -> tuple[Array, Hyper]:
    """f on these episodes, and its hypergradient by the network and the logarithm of the rate."""
    features, pull_back = jax.vjp(
        lambda network: represent_episodes(network, episodes, shots), hyper["network"]
    )
    inner = features._asdict() | {"log_rate": hyper["log_rate"]}
    found, _ = rfho.hyper_gradients.ReverseHyperGradient().estimate(problem, inner, None)
    by_inner = found.hypergradient
    (by_network,) = pull_back(Features(by_inner["support"], by_inner["query"]))
    return found.value, {"network": by_network, "log_rate": by_inner["log_rate"]}


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
    return np.concatenate([_accuracies(problem, hyper, episodes, shots) for episodes in drawn])


def nearest(
    pool: Classes, shots: int, settings: RepresentationSettings, *, count: int
) -> np.ndarray:
    """The accuracy of nearest neighbours on pixels in each of the same episodes, in percent."""
    drawn = _test_episodes(pool, shots, settings, count)
    return np.concatenate([_nearest_accuracies(episodes, shots) for episodes in drawn])


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


def results(
    rows: list[list[Cell]], learned: dict[int, Learned], settings: RepresentationSettings
) -> Table:
    """All that was compared."""
    columns = [
        Column("learner"),
        Column("examples per class", 0),
        Column("test accuracy %", 1),
        Column("inner rate"),
    ]
    steps = ", ".join(str(each.steps[-1]) for each in learned.values() if each.steps)
    note = (
        f"{settings.ways} classes at a time, none of them seen in meta-training; mean and half of the "
        f"95 % confidence interval over {settings.tests} episodes with {settings.test_queries} "
        f"queries per class. T = {settings.horizon}; outer steps of {settings.episodes} episodes: "
        f"{steps or 'none'}. The rate of the untrained representation is the best of {len(RATES)} on "
        "classes of meta-training."
    )
    title = f"Few-shot classification of new classes: {settings.data}"
    return make_table(title, columns, rows, note=note)


def _losses(heads: Array, rows: Float[Array, "episodes n width"]) -> Float[Array, " episodes"]:
    """The mean cross-entropy in each episode; rows are sorted by class."""
    logits = _logits(heads, rows)
    labels = jnp.broadcast_to(_labels(*logits.shape[1:]), logits.shape[:2])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels), axis=1)


def _logits(heads: Array, rows: Array) -> Float[Array, "episodes n ways"]:
    return rows @ heads[:, :-1] + heads[:, -1:]


def _labels(count: int, ways: int) -> Array:
    return jnp.repeat(jnp.arange(ways), count // ways)


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


@eqx.filter_jit
def _accuracies(problem: rfho.Problem, hyper: Hyper, episodes: Episodes, shots: int) -> Array:
    features = represent_episodes(hyper["network"], episodes, shots)
    inner = features._asdict() | {"log_rate": hyper["log_rate"]}
    _, heads = rfho.hyper_gradients.ReverseHyperGradient().conclude(problem, inner, None)
    logits = _logits(heads, features.query)
    right = jnp.argmax(logits, axis=2) == _labels(*logits.shape[1:])
    return 100 * jnp.mean(right.astype(logits.dtype), axis=1)


@eqx.filter_jit
def _nearest_accuracies(episodes: Episodes, shots: int) -> Array:
    count, ways = episodes.shape[:2]
    ink = episodes.reshape(*episodes.shape[:3], -1).astype(jnp.float32) / 255
    support = ink[:, :, :shots].reshape(count, ways * shots, -1)
    query = ink[:, :, shots:].reshape(count, -1, ink.shape[-1])
    # |q - s|^2 without |q|^2, which is the same for every s.
    far = jnp.sum(support**2, axis=2)[:, None] - 2 * query @ jnp.swapaxes(support, 1, 2)
    guess = jnp.argmin(far, axis=2) // shots
    right = guess == _labels(query.shape[1], ways)
    return 100 * jnp.mean(right.astype(ink.dtype), axis=1)


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


def _add_episode(folder: RunFolder, pools: Pools, settings: RepresentationSettings) -> None:
    """What an episode of meta-testing shows: one drawing of each class, and three to be recognised."""
    episode = _test_episodes(pools.testing, 1, settings, 1)[0][0]
    images = np.concatenate([episode[:, 0], *(episode[:, number] for number in (1, 2, 3))])
    letters = [chr(ord("A") + number % 26) for number in range(settings.ways)]
    captions = [f"class {letter}" for letter in letters] + [f"{letter}?" for letter in 3 * letters]
    drawn = image_grid(images / 255, captions, columns=settings.ways)
    folder.add_picture("episode", drawn, _EPISODE)


def _add_curves(folder: RunFolder, learned: dict[int, Learned]) -> None:
    looked = [each for each in learned.values() if len(each.steps) > 1]
    if not looked:
        return
    steps = min((each.steps for each in looked), key=len)
    series = {
        f"{shots} of each class to learn from": np.array(each.accuracies[: len(steps)])
        for shots, each in learned.items()
        if len(each.steps) > 1
    }
    drawn = curves(
        series, np.array(steps), x_label="outer step", y_label="accuracy on new classes in %"
    )
    folder.add_picture("accuracy", drawn, _CURVES)


_EPISODE = (
    "An episode of meta-testing. First row: one drawing of each class, to learn from. Below: drawings "
    "by others, to be recognised."
)
_CURVES = "Accuracy in episodes of classes that meta-training never saw, by outer step."

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
        channels=(16, 32, 64, 64),
        steps=1000,
        every=100,
        tests=600,
    ),
    run=run,
)
