r"""Ten images that train a model (arXiv 1502.03492, section 3.3: the training set as a hyperparameter).

The training set itself is learned: one image x_c per class, with its label fixed, such that a model
trained on these ten images alone does well on a large validation set,

.. math:: \min_{x_1, \dots, x_{10}} E(w_T), \qquad
          w_t = w_{t-1} - \eta \nabla_w \frac{1}{10} \sum_c \ell(w_{t-1}, x_c, c).

Softmax regression, from zero, T steps. The images start blank. What they are to be compared with:
ten real images, one of each class, drawn at random, and trained on at the rate that suits them best.
"""

import dataclasses
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Float32
from rich.console import Console

import rfho
from rfho.experiments.parts.image_data import IMAGE_SETS, ImageSplit, Part, load_image_split
from rfho.experiments.parts.network import Examples, Network, accuracy, blank_network, cross_entropy
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.pictures import curves, image_grid
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.study import Record, add_tables, tabulated, traced

Hyper = dict[str, Array]

RATES = tuple(np.geomspace(0.01, 30, 12).tolist())
"""The rates among which the real images choose theirs, by the validation loss."""

_COLUMNS = {"training set": None, "test accuracy %": 1, "validation loss": 3, "sets": 0}


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


def training(valid: Part, settings: DistillSettings) -> rfho.Problem:
    """Softmax regression on the images that are the hyperparameters."""
    pixels, classes = valid[0].shape[1], int(valid[1].max()) + 1
    labels = jnp.arange(classes)

    def loss(network: Network, hyper: Hyper, batch: None) -> Array:
        return cross_entropy(network, hyper, (hyper["images"], labels))

    dynamics = rfho.Descent(
        loss, lambda hyper: optax.sgd(hyper["rate"]), blank_network(pixels, classes)
    )
    return rfho.Problem(dynamics, cross_entropy, None, valid, settings.horizon)


def learn(
    problem: rfho.Problem,
    images: np.ndarray,
    settings: DistillSettings,
    *,
    run: OuterLoop | None = None,
) -> Iterator[rfho.outer.Report]:
    """Descends the validation loss in the pixels of the ten images."""
    return rfho.iterate(
        problem,
        {"images": jnp.asarray(images), "rate": jnp.float32(settings.rate)},
        optim=optax.adam(settings.outer_rate),
        domain={"images": rfho.Reals(), "rate": rfho.Fixed()},
        steps=settings.steps,
        run=run,
    )


def run(settings: DistillSettings, folder: RunFolder, console: Console) -> None:
    """Learns the images, trains on real ones, compares."""
    sizes = (settings.draws * 10, settings.valid, settings.test)
    data = load_image_split(settings.data, sizes, seed=settings.seed)
    problem = training(data.valid, settings)
    images = np.zeros((len(data.class_names), data.pixels), np.float32)
    with until_interrupted(folder, console):
        for report in learn(problem, images, settings, run=OuterLoop(folder, "images")):
            images = np.asarray(report.hyper["images"])
            judged = judge(problem, data.test, images[None], settings.rate)
            row = {"step": report.step, "validation loss": report.value}
            row["test accuracy %"] = judged["test accuracy %"][0]
            folder.record(row | {"seconds": report.seconds})
    history = folder.history()
    pictures = images.reshape(-1, *data.shape)
    folder.add_arrays("images", {"images": pictures}, "The learned images:")
    limits = float(images.min()), float(max(images.max(), images.min() + 1e-6))
    folder.add_picture("learned", image_grid(pictures, data.class_names, limits=limits), _CAPTION)
    real = real_draws(data, settings)
    drawn = image_grid(real[0].reshape(-1, *data.shape), data.class_names)
    folder.add_picture("real", drawn, "Ten real images, the first of the random sets.")
    if history:
        series = {"learned images": traced(history, "test accuracy %")}
        steps = np.arange(1, len(history) + 1)
        drawn = curves(series, steps, x_label="outer step", y_label="test accuracy in %")
        folder.add_picture("accuracy", drawn, _PROGRESS)
    rate = best_rate(problem, data.test, real)
    table = tabulated(
        "What ten images teach",
        comparison(problem, data, settings, images=images, real=real, rate=rate),
        _COLUMNS,
        note=f"Learned images: {len(history)} outer steps, {settings.horizon} inner steps at rate "
        f"{settings.rate:g}. Real images: random, one per class, trained for as many steps at rate "
        f"{rate:.3g}, the best of {len(RATES)} by validation loss; mean ± standard deviation over "
        "the sets. The last row is a model trained for 500 steps on all images that the learned ones "
        "were judged by.",
    )
    add_tables(folder, console, {"accuracy": table})


def real_draws(data: ImageSplit, settings: DistillSettings) -> Float32[np.ndarray, "draws c p"]:
    """Sets of one real image of each class, drawn from the training part."""
    generator = np.random.default_rng(settings.seed)
    images, labels = data.train
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[: settings.draws]
        for label in range(len(data.class_names))
    ]
    return np.stack([images[index] for index in chosen], axis=1)


def judge(
    problem: rfho.Problem, test: Part, images: np.ndarray, rate: float
) -> dict[str, np.ndarray]:
    """Trains one model on each set of images: losses on the validation set, accuracies on the test."""
    examples = jnp.asarray(test[0]), jnp.asarray(test[1])
    loss, right = _trained(problem, examples, jnp.asarray(images), jnp.float32(rate))
    return {"validation loss": np.asarray(loss), "test accuracy %": 100 * np.asarray(right)}


def best_rate(problem: rfho.Problem, test: Part, images: np.ndarray) -> float:
    """The rate of lowest validation loss, on the mean over the sets."""
    losses = [judge(problem, test, images, rate)["validation loss"] for rate in RATES]
    means = [float(np.mean(loss)) if np.all(np.isfinite(loss)) else np.inf for loss in losses]
    return RATES[int(np.argmin(means))]


def comparison(
    problem: rfho.Problem,
    data: ImageSplit,
    settings: DistillSettings,
    *,
    images: np.ndarray,
    real: np.ndarray,
    rate: float,
) -> list[Record]:
    """Test accuracy after training on learned images, on real ones, and on all validation images."""
    of_real = judge(problem, data.test, real, rate)
    best = {"validation loss": np.min, "test accuracy %": np.max}
    return [
        {"training set": name, "sets": sets, **found}
        for name, sets, found in (
            ("ten learned images", 1, judge(problem, data.test, images[None], settings.rate)),
            ("ten real images", len(real), of_real),
            ("the best ten of them", 1, {key: of(of_real[key]) for key, of in best.items()}),
            (f"all {settings.valid} validation images", 1, {"test accuracy %": all_images(data)}),
        )
    ]


def all_images(data: ImageSplit) -> float:
    """Of a model trained on the whole validation set."""
    dynamics = rfho.Descent(
        cross_entropy,
        lambda rate: optax.sgd(rate, momentum=0.9),
        blank_network(data.pixels, len(data.class_names)),
    )
    problem = rfho.Problem(dynamics, cross_entropy, data.valid, data.valid, 500)
    network = rfho.train(problem, jnp.float32(0.1)).params
    return 100 * float(accuracy(network, (jnp.asarray(data.test[0]), jnp.asarray(data.test[1]))))


@eqx.filter_jit
def _trained(
    problem: rfho.Problem, test: Examples, images: Array, rate: Array
) -> tuple[Float[Array, " sets"], Float[Array, " sets"]]:
    def one(images: Array) -> tuple[Array, Array]:
        value, network = rfho.train(problem, {"images": images, "rate": rate})
        return value, accuracy(network, test)

    return jax.vmap(one)(images)


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
