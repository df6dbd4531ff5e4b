r"""Data hyper-cleaning (arXiv 1703.01785, section 5.1): which training examples have a wrong label?

Softmax regression is trained by gradient descent on N examples, each with a weight of its own,

.. math:: L(w, \lambda) = \frac{1}{N} \sum_i \lambda_i \, \ell(w, x_i, y_i),

and the weights are hyperparameters: they minimise the loss of w_T on a small clean validation set
over {0 <= λ <= 1, Σλ <= R}. An example whose weight ends at zero is a suspect. The regularity that
finds them is the budget: with Σλ <= R the examples compete.

The sets for all R are tuned side by side (`rfho.iterate_many`), so that the data are read once for
all of them.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int
from rich.console import Console

import rfho
from rfho.experiments.data_cleaning.data import CleaningData, load_cleaning_data
from rfho.experiments.data_cleaning.report import (
    ACCURACIES,
    Tuned,
    add_curves,
    add_suspects,
    add_tuned,
    detection,
    tables,
)
from rfho.experiments.data_cleaning.rivals import Suspects, suspected
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, between, one_of, setting
from rfho.runs.study import Record, Study, add_tables

Params = dict[str, Array]
"""``weight`` of the shape (classes, pixels) and ``bias`` of the shape (classes,)."""

Hyper = dict[str, Array]
"""``weights`` λ of the examples, and the inner ``rate``."""

Batch = tuple[Array, Array]
"""Images as rows, and labels."""


@dataclasses.dataclass(frozen=True)
class CleaningSettings:
    """The data and their wrong labels, and how the weights are learned."""

    data: str = setting(
        "digits", "digits, mnist or fashion-mnist", one_of("digits", "mnist", "fashion-mnist")
    )
    train: int = setting(1000, "training examples, some with a wrong label", at_least(10))
    valid: int = setting(240, "validation examples, all clean", at_least(1))
    test: int = setting(500, "test examples", at_least(1))
    noise: tuple[float, ...] = setting(
        (0.5,), "fractions of wrong labels, one study each", between(0, 1)
    )
    budgets: tuple[float, ...] = setting(
        (0.2, 0.3, 0.4, 0.5),
        "bounds R on the sum of the weights, as fractions of train",
        between(0.001, 1),
    )
    seed: int = setting(0, "of the split and of the wrong labels", at_least(0))
    repeats: int = setting(1, "seeds per study: seed, seed + 1, …", at_least(1))
    horizon: int = setting(400, "inner steps T, also of the final models", at_least(1))
    steps: int = setting(30, "outer steps", at_least(1))
    window: int = setting(
        0,
        "0: a whole training run per outer step; K: one training run, swept back every K steps",
        at_least(0),
    )
    inner_rate: float = setting(0.2, "inner rate, times N/R while tuning", above(0))
    outer_rate: float = setting(0.05, "rate of Adam on the weights", above(0))
    threshold: float = setting(1e-3, "a smaller weight makes a suspect", above(0))


def weighted_loss(params: Params, hyper: Hyper, batch: Batch) -> Float[Array, ""]:
    """L: the mean of λ_i ℓ_i."""
    return jnp.mean(hyper["weights"] * cross_entropies(params, batch))


def validation_loss(params: Params, hyper: Hyper, batch: Batch) -> Float[Array, ""]:
    """E: the mean of ℓ_i."""
    return jnp.mean(cross_entropies(params, batch))


def cross_entropies(params: Params, batch: Batch) -> Float[Array, " n"]:
    """ℓ of each example."""
    images, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)


def logits(params: Params, images: Array) -> Float[Array, "n classes"]:
    """One row per image."""
    # W is (classes, pixels), so that both products with the images run along their rows.
    return images @ params["weight"].T + params["bias"]


def softmax_regression(data: CleaningData) -> rfho.Descent:
    """Gradient descent on L from W = 0, b = 0."""
    classes, pixels, dtype = len(data.class_names), data.train[0].shape[1], data.train[0].dtype
    init = {"weight": jnp.zeros((classes, pixels), dtype), "bias": jnp.zeros(classes, dtype)}
    return rfho.Descent(weighted_loss, gradient_descent, init)


def gradient_descent(hyper: Hyper) -> optax.GradientTransformation:
    """At the rate of ``hyper``."""
    return optax.sgd(hyper["rate"])


def tune_weights(
    data: CleaningData, settings: CleaningSettings, folder: RunFolder, *, console: Console
) -> Tuned:
    """Learns one weight per training example, for all budgets side by side."""
    count, dtype = len(data.true), data.train[0].dtype
    radii = np.asarray(settings.budgets) * count
    horizon = settings.window * settings.steps or settings.horizon
    dynamics = softmax_regression(data)
    problem = rfho.Problem(dynamics, validation_loss, data.train, data.valid, horizon)
    hypers = [
        {
            "weights": jnp.full(count, radius / count, dtype),
            "rate": jnp.asarray(settings.inner_rate * count / radius, dtype),
        }
        for radius in radii
    ]
    weights = np.stack([hyper["weights"] for hyper in hypers])
    tuned = Tuned(data, radii, settings.threshold, weights, np.zeros_like(weights), (), ())
    bar = rfho.RichProgress(f"noise {data.noise:g}, seed {data.seed}")
    with until_interrupted(folder, console):
        for reports in rfho.iterate_many(
            problem,
            hypers,
            method=_method(settings),
            optim=_adam(settings.outer_rate),
            domains=[{"weights": rfho.CappedL1(float(r)), "rate": rfho.Fixed()} for r in radii],
            steps=settings.steps,
            listeners=[bar],
            run=OuterLoop(folder, f"weights-{data.noise:g}-{data.seed}"),
        ):
            tuned = _stepped(tuned, reports)
            folder.record(tuned.row())
    return tuned


def train_final_models(
    tuned: Tuned, others: Suspects, settings: CleaningSettings
) -> tuple[list[dict[str, Any]], Int[np.ndarray, "budgets n"]]:
    """Trains on what is left of the training set and on the validation set, all models alike.

    The loss is the weighted mean over the examples that a model is given, so that the models differ
    in their data alone. The last ones are those of the authors' program: weights λ for training
    examples and max λ for validation examples, rate 0.1 / max λ, and a mean over all examples.

    Returns:
        A record for each training set, and the labels that the cleaned models give to training images.
    """
    data, budgets = tuned.data, len(tuned.radii)
    sets = {"oracle": ~data.wrong, "baseline": data.wrong | True, "validation": data.wrong & False}
    sets |= {name: ~suspects for name, suspects in others.items()}
    sets |= dict(zip(tuned.names, ~tuned.suspects, strict=True))
    valid = np.ones((len(sets), len(data.valid[1])), bool)
    plain = np.concatenate([np.stack(list(sets.values())), valid], axis=1)
    largest = np.maximum(tuned.weights.max(axis=1, keepdims=True), tuned.threshold)
    as_released = np.concatenate([tuned.weights / largest, valid[:budgets]], axis=1)
    shares = np.concatenate([plain / plain.mean(axis=1, keepdims=True), as_released])
    images, labels = (np.concatenate(parts) for parts in zip(data.train, data.valid, strict=True))
    dynamics, horizon = softmax_regression(data), settings.horizon
    problem = rfho.Problem(dynamics, validation_loss, (images, labels), data.test, horizon)
    dtype = data.train[0].dtype
    shares, rate = jnp.asarray(shares, dtype), jnp.asarray(settings.inner_rate, dtype)
    of_test, of_train = jax.device_get(_predicted(problem, shares, rate))
    right = (100 * np.mean(of_test == data.test[1], axis=1)).tolist()
    records = [
        {"training set": name, "test %": each} for name, each in zip(sets, right, strict=False)
    ]
    cleaned = zip(records[-budgets:], right[-budgets:], tuned.suspects, strict=True)
    for record, weighted, suspects in cleaned:
        record |= {"weighted %": weighted, "suspects": int(suspects.sum())}
        record |= detection(suspects, data.wrong)
    # Whoever trusts a model of the clean examples suspects every label that it would not give.
    clean = list(sets).index("validation")
    disagrees = of_train[clean, : len(data.true)] != np.asarray(data.train[1])
    named = dict(zip(sets, records, strict=True))
    for name, suspects in {"validation": disagrees, **others}.items():
        named[name] |= {"suspects": int(suspects.sum())} | detection(suspects, data.wrong)
    return records, of_train[len(sets) - budgets : len(sets), : len(data.true)]


def run(settings: CleaningSettings, folder: RunFolder, console: Console) -> None:
    """Studies every noise level with every seed, and adds what was found to the folder."""
    sizes = settings.train, settings.valid, settings.test
    times: list[Record] = []
    judged: list[Record] = []

    def on_case(case: tuple[float, int]) -> Iterator[Record]:
        noise, seed = case
        data = load_cleaning_data(settings.data, sizes, noise=noise, seed=seed)
        begin = time.perf_counter()
        others = suspected(data)
        seconds = {"others s": time.perf_counter() - begin}
        tuned = tune_weights(data, settings, folder, console=console)
        add_tuned(folder, tuned, first=seed == settings.seed)
        begin = time.perf_counter()
        records, likely = train_final_models(tuned, others, settings)
        times.append(tuned.time | seconds | {"final models s": time.perf_counter() - begin})
        judged.extend({"noise": noise, **record} for record in records)
        add_curves(folder, tuned, judged)
        if seed == settings.seed:
            add_suspects(folder, tuned, likely)
        for record in records:
            yield {"noise": noise, "seed": seed, **record}

    seeds = range(settings.seed, settings.seed + settings.repeats)
    cases = itertools.product(settings.noise, seeds)
    show = lambda records: add_tables(folder, console, tables(records, times, settings.train))  # noqa: E731
    study = Study({}, cases, on_case, ACCURACIES, by="training set")
    study.carry_out(folder, console, after_each=show)


@functools.cache
def _adam(rate: float) -> optax.GradientTransformation:
    # The same object for the same rate: what is compiled for one seed serves the next.
    return optax.adam(rate)


def _method(settings: CleaningSettings) -> rfho.hyper_gradients.AbstractHyperGradient:
    # Keeping the logits too (N x classes per step) spares one of five products with the images.
    policy = rfho.StoreAll(rfho.Keep.RESIDUALS)
    if settings.window:
        return rfho.OnlineTruncatedHyperGradient(settings.window, settings.window, policy)
    return rfho.ReverseHyperGradient(policy)


def _stepped(tuned: Tuned, rows: Sequence[rfho.outer.Report | None]) -> Tuned:
    reports: list[rfho.outer.Report] = []
    for radius, report in zip(tuned.radii, rows, strict=True):
        if report is None:
            raise SettingsError(f"training with R = {radius:g} diverged: lower inner_rate")
        reports.append(report)
    return tuned._replace(
        weights=np.stack([report.hyper["weights"] for report in reports]),
        hypergradients=np.stack([report.hypergradient["weights"] for report in reports]),
        losses=tuple(report.value for report in reports),
        seconds=(*tuned.seconds, reports[0].seconds),
    )


@eqx.filter_jit
def _predicted(problem: rfho.Problem, shares: Array, rate: Array) -> list[Int[Array, "models _"]]:
    """The labels that models give to the images that judge them and to those that they learn from."""

    def one(weights: Array) -> list[Array]:
        params = rfho.train(problem, {"weights": weights, "rate": rate}).params
        sets = problem.valid[0], problem.train[0]
        return [jnp.argmax(logits(params, images), axis=1) for images in sets]

    return jax.vmap(one)(shares)


DATA_CLEANING = Experiment(
    name="data-cleaning",
    title="Data hyper-cleaning",
    summary=(
        "Finds the training examples whose labels are wrong by learning one weight per example "
        "through training itself (arXiv 1703.01785, section 5.1)."
    ),
    quick=CleaningSettings(),
    full=CleaningSettings(
        data="mnist",
        train=5000,
        valid=5000,
        test=10_000,
        horizon=2000,
        steps=500,
        inner_rate=0.1,
        outer_rate=0.005,
    ),
    run=run,
)
