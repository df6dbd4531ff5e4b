r"""Ten images that train a model (arXiv 1502.03492, section 3.3: the training set as a hyperparameter).

The training set itself is learned: one image x_c per class, with its label fixed, such that a model
trained on these ten images alone does well on a large validation set,

.. math:: \min_{x_1, \dots, x_{10}} E(w_T), \qquad
          w_t = w_{t-1} - \eta \nabla_w \frac{1}{10} \sum_c \ell(w_{t-1}, x_c, c).

Softmax regression, from zero, T steps. The images start blank. What they are to be compared with:
ten real images, one of each class, drawn at random, and trained on at the rate that suits them best.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float32
from matplotlib.figure import Figure
from rich.console import Console

import rfho
from rfho.experiments.distilled_data.few_images import RATES, best_rate, judge
from rfho.experiments.parts.image_data import IMAGE_SETS, ImageSplit, Part, load_image_split
from rfho.experiments.parts.network import Examples, Network, accuracy, blank_network, cross_entropy
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.pictures import curves, image_grid
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.table import Column, Table, make_table, spread, to_rich

Hyper = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class DistillSettings:
    """Which images are learned from, and how."""

    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    valid: int = setting(900, "images that the learned ones are judged by", at_least(10))
    test: int = setting(500, "test images", at_least(10))
    horizon: int = setting(20, "inner steps T", at_least(1))
    rate: float = setting(1.0, "inner rate", above(0))
    steps: int = setting(200, "outer steps", at_least(1))
    outer_rate: float = setting(0.05, "rate of Adam on the pixels", above(0))
    draws: int = setting(30, "sets of ten real images to compare with", at_least(2))
    seed: int = setting(0, "of the split and of the draws", at_least(0))


class Learned(NamedTuple):
    """The images and how they came about.

    Attributes:
        images: one row per class.
        losses: the validation loss at each outer step.
        accuracies: on the test set in percent, after each outer step.
    """

    images: Float32[np.ndarray, "classes pixels"]
    losses: list[float]
    accuracies: list[float]


def run(settings: DistillSettings, folder: RunFolder, console: Console) -> None:
    """Learns the images, trains on real ones, compares."""
    sizes = (settings.draws * 10, settings.valid, settings.test)
    data = load_image_split(settings.data, sizes, seed=settings.seed)
    problem = training(data.valid, settings)
    learned = distil(problem, data, settings, folder=folder, console=console)
    captions = list(data.class_names)
    images = learned.images.reshape(-1, *data.shape)
    folder.add_arrays("images", {"images": images}, "The learned images:")
    limits = float(images.min()), float(max(images.max(), images.min() + 1e-6))
    folder.add_picture("learned", image_grid(images, captions, limits=limits), _CAPTION)
    real = real_draws(data, settings)
    folder.add_picture(
        "real",
        image_grid(real[0].reshape(-1, *data.shape), captions),
        "Ten real images, the first of the random sets.",
    )
    if learned.accuracies:
        folder.add_picture("accuracy", _progress(learned), _PROGRESS)
    table = comparison(problem, data, settings, learned=learned, real=real)
    folder.add_table("accuracy", table)
    console.print(to_rich(table))


def distil(
    problem: rfho.Problem,
    data: ImageSplit,
    settings: DistillSettings,
    *,
    folder: RunFolder,
    console: Console,
) -> Learned:
    """Descends the validation loss in the pixels of the ten images."""
    hyper = {
        "images": jnp.zeros((len(data.class_names), data.pixels), jnp.float32),
        "rate": jnp.float32(settings.rate),
    }
    learned = Learned(np.asarray(hyper["images"]), [], [])
    with until_interrupted(folder, console):
        for report in rfho.iterate(
            problem,
            hyper,
            optim=optax.adam(settings.outer_rate),
            domain={"images": rfho.Reals(), "rate": rfho.Fixed()},
            steps=settings.steps,
        ):
            images = np.asarray(report.hyper["images"])
            judged = judge(problem, data.test, images[None], settings.rate)
            learned = Learned(
                images,
                [*learned.losses, report.value],
                [*learned.accuracies, float(judged.accuracy[0])],
            )
            folder.record(
                {
                    "step": report.step,
                    "validation loss": report.value,
                    "test accuracy %": learned.accuracies[-1],
                    "seconds": report.seconds,
                }
            )
    return learned


def training(valid: Part, settings: DistillSettings) -> rfho.Problem:
    """Softmax regression on the images that are the hyperparameters."""
    pixels, classes = valid[0].shape[1], int(valid[1].max()) + 1
    labels = jnp.arange(classes)

    def loss(network: Network, hyper: Hyper, batch: None) -> Array:
        return cross_entropy(network, (hyper["images"], labels))

    def validation_loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
        return cross_entropy(network, batch)

    dynamics = rfho.Descent(
        loss, lambda hyper: optax.sgd(hyper["rate"]), blank_network(pixels, classes)
    )
    return rfho.Problem(dynamics, validation_loss, None, valid, settings.horizon)


def real_draws(data: ImageSplit, settings: DistillSettings) -> Float32[np.ndarray, "draws c p"]:
    """Sets of one real image of each class, drawn from the training part."""
    generator = np.random.default_rng(settings.seed)
    images, labels = data.train
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[: settings.draws]
        for label in range(len(data.class_names))
    ]
    return np.stack([images[index] for index in chosen], axis=1)


def comparison(
    problem: rfho.Problem,
    data: ImageSplit,
    settings: DistillSettings,
    *,
    learned: Learned,
    real: np.ndarray,
) -> Table:
    """Test accuracy after training on learned images, on real ones, and on all validation images."""
    rate = best_rate(problem, data, real)
    of_real = judge(problem, data.test, real, rate)
    of_learned = judge(problem, data.test, learned.images[None], settings.rate)
    means = [spread(of_real.accuracy), spread(of_real.loss)]
    rows = [
        ["ten learned images", float(of_learned.accuracy[0]), float(of_learned.loss[0]), 1],
        ["ten real images", *means, len(real)],
        ["the best ten of them", float(of_real.accuracy.max()), float(of_real.loss.min()), 1],
        [f"all {settings.valid} validation images", _all_images(data), None, 1],
    ]
    columns = [
        Column("training set"),
        Column("test accuracy %", 1),
        Column("validation loss", 3),
        Column("sets", 0),
    ]
    note = (
        f"Learned images: {len(learned.losses)} outer steps, {settings.horizon} inner steps at rate "
        f"{settings.rate:g}. Real images: random, one per class, trained for as many steps at rate "
        f"{rate:.3g}, the best of {len(RATES)} by validation loss; mean ± standard deviation over "
        "the sets. The last row is a model trained for 500 steps on all images that the learned ones "
        "were judged by."
    )
    return make_table("What ten images teach", columns, rows, note=note)


def _all_images(data: ImageSplit) -> float:
    def loss(network: Network, hyper: Array, batch: Examples) -> Array:
        return cross_entropy(network, batch)

    dynamics = rfho.Descent(
        loss,
        lambda rate: optax.sgd(rate, momentum=0.9),
        blank_network(data.pixels, len(data.class_names)),
    )
    problem = rfho.Problem(dynamics, loss, data.valid, data.valid, 500)
    estimate = rfho.hyper_gradient(
        problem, jnp.float32(0.1), rfho.hyper_gradients.ForwardHyperGradient()
    )
    test = jnp.asarray(data.test[0]), jnp.asarray(data.test[1])
    return 100 * float(accuracy(estimate.aux.params, test))


def _progress(learned: Learned) -> Figure:
    return curves(
        {"learned images": np.array(learned.accuracies)},
        np.arange(1, len(learned.accuracies) + 1),
        x_label="outer step",
        y_label="test accuracy in %",
    )


_CAPTION = (
    "The ten learned images, one per class; dark is large, and the grey of the background is zero: "
    "the images say what a class is and what it is not."
)
_PROGRESS = "Test accuracy of the model that ten learned images train, by outer step."

DISTILLED_DATA = Experiment(
    name="distilled-data",
    title="Ten images that train a model",
    summary=(
        "Learns one training image per class, pixel by pixel, so that a model trained on the ten of "
        "them alone does well (arXiv 1502.03492), and compares with ten real images."
    ),
    quick=DistillSettings(),
    full=DistillSettings(data="mnist", valid=10_000, test=10_000, draws=50, outer_rate=0.02),
    run=run,
)
