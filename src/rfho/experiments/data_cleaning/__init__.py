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
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

import rfho
from rfho.experiments.data_cleaning.data import CleaningData, load_cleaning_data
from rfho.experiments.data_cleaning.models import (
    predicted,
    softmax_regression,
    train_on_both,
    validation_loss,
)
from rfho.experiments.data_cleaning.report import (
    FinalModels,
    Tuned,
    add_results,
    add_tuned,
    detection,
)
from rfho.runs.about import INTERRUPTED
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, between, one_of, setting
from rfho.runs.table import Table, to_rich


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


def run(settings: CleaningSettings, folder: RunFolder, console: Console) -> None:
    """Studies every noise level with every seed, and adds what was found to the folder."""
    sizes = settings.train, settings.valid, settings.test
    seeds = range(settings.seed, settings.seed + settings.repeats)
    tables: list[Table] = []
    finished: list[tuple[Tuned, FinalModels]] = []
    for noise, seed in itertools.product(settings.noise, seeds):
        data = load_cleaning_data(settings.data, sizes, noise=noise, seed=seed)
        tuned = tune_weights(data, settings, folder, console=console)
        add_tuned(folder, [*(earlier for earlier, _ in finished), tuned])
        finished.append((tuned, train_final_models(tuned, settings, console)))
        tables = add_results(folder, finished)
        if folder.about().status == INTERRUPTED:
            break
    for table in tables:
        console.print(to_rich(table))


def tune_weights(
    data: CleaningData, settings: CleaningSettings, folder: RunFolder, *, console: Console
) -> Tuned:
    """Learns one weight per training example, for all budgets side by side."""
    count, dtype = len(data.given), data.train.dtype
    radii = np.asarray(settings.budgets) * count
    problem = rfho.Problem(
        softmax_regression(data),
        validation_loss,
        train=(data.train, data.given),
        valid=(data.valid, data.valid_labels),
        horizon=settings.window * settings.steps or settings.horizon,
    )
    hypers = [
        {
            "weights": jnp.full(count, radius / count, dtype),
            "rate": jnp.asarray(settings.inner_rate * count / radius, dtype),
        }
        for radius in radii
    ]
    domains = [{"weights": rfho.CappedL1(float(r)), "rate": rfho.Fixed()} for r in radii]
    weights = np.stack([hyper["weights"] for hyper in hypers])
    tuned = Tuned(data, radii, settings.threshold, weights, np.zeros_like(weights), [], [], [])
    bar = rfho.RichProgress(f"noise {data.noise:g}, seed {data.seed}")
    handle = bar.start(settings.steps)
    try:
        with until_interrupted(folder, console):
            for reports in rfho.iterate_many(
                problem,
                hypers,
                method=_method(settings),
                optim=_adam(settings.outer_rate),
                domains=domains,
                steps=settings.steps,
            ):
                tuned = _with(tuned, reports)
                folder.record(_row(tuned))
                bar.advance(handle, reports[0].step, f"best F1 {max(tuned.f1[-1]):.3f}")
    finally:
        bar.close(handle)
    return tuned


def train_final_models(tuned: Tuned, settings: CleaningSettings, console: Console) -> FinalModels:
    """Trains on what is left of the training set and on the validation set, all models alike.

    The loss is the weighted mean over the examples that a model is given, so that the models differ
    in their data alone. The last ones are those of the authors' program: weights λ for training
    examples and max λ for validation examples, rate 0.1 / max λ, and a mean over all examples.
    """
    data = tuned.data
    console.print(f"Training {3 + 2 * len(tuned.radii)} final models for {settings.horizon} steps")
    wrong, suspect = data.wrong, tuned.weights < tuned.threshold
    nothing, everything = np.zeros_like(wrong), np.ones_like(wrong)
    chosen = np.stack([~wrong, everything, nothing, *~suspect])
    valid = np.ones((len(chosen), len(data.valid)), bool)
    plain = np.concatenate([chosen, valid], axis=1)
    largest = np.maximum(tuned.weights.max(axis=1, keepdims=True), tuned.threshold)
    as_released = np.concatenate([tuned.weights / largest, valid[: len(largest)]], axis=1)
    shares = np.concatenate([plain / plain.mean(axis=1, keepdims=True), as_released])
    begin = time.perf_counter()
    trained = train_on_both(data, shares, rate=settings.inner_rate, horizon=settings.horizon)
    accuracies, params = jax.device_get(trained)
    oracle, baseline, valid_only, *cleaned = (100 * accuracies).tolist()
    budgets = len(tuned.radii)
    kept_params = jax.tree.map(lambda leaf: leaf[3 : 3 + budgets], params)
    likely = jax.vmap(predicted, in_axes=(0, None))(kept_params, jnp.asarray(data.train))
    return FinalModels(
        oracle,
        baseline,
        valid_only,
        cleaned[:budgets],
        cleaned[budgets:],
        np.asarray(likely),
        time.perf_counter() - begin,
    )


@functools.cache
def _adam(rate: float) -> optax.GradientTransformation:
    # The same object for the same rate: what is compiled for one seed serves the next.
    return optax.adam(rate)


def _method(settings: CleaningSettings) -> rfho.AbstractHyperGradient:
    # Keeping the logits too (N x classes per step) spares one of five products with the images.
    policy = rfho.StoreAll(rfho.Keep.RESIDUALS)
    if settings.window:
        return rfho.hyper_gradients.OnlineTruncatedHyperGradient(
            settings.window, settings.window, policy
        )
    return rfho.hyper_gradients.ReverseHyperGradient(policy)


def _with(tuned: Tuned, reports: Sequence[rfho.Report]) -> Tuned:
    for radius, report in zip(tuned.radii, reports, strict=True):
        if not np.all(np.isfinite([report.value, *report.hyper["weights"]])):
            raise SettingsError(
                f"training with R = {radius:g} diverged at outer step {report.step}: lower inner_rate"
            )
    weights = np.stack([report.hyper["weights"] for report in reports])
    f1 = [detection(row < tuned.threshold, tuned.data.wrong).f1 for row in weights]
    return tuned._replace(
        weights=weights,
        hypergradients=np.stack([report.hypergradient["weights"] for report in reports]),
        losses=[*tuned.losses, [report.value for report in reports]],
        f1=[*tuned.f1, f1],
        seconds=[*tuned.seconds, reports[0].seconds],
    )


def _row(tuned: Tuned) -> dict[str, object]:
    """The line of the history for the last outer step."""
    row: dict[str, object] = {"noise": tuned.data.noise, "seed": tuned.data.seed}
    row |= {"step": len(tuned.losses), "seconds": round(tuned.seconds[-1], 3)}
    suspects = (tuned.weights < tuned.threshold).sum(axis=1)
    for radius, loss, f1, count in zip(
        tuned.radii, tuned.losses[-1], tuned.f1[-1], suspects, strict=True
    ):
        row |= {f"loss R={radius:g}": loss, f"F1 R={radius:g}": f1, f"suspects R={radius:g}": count}
    return row


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
