r"""Learning task interactions (arXiv 1703.01785, section 5.2).

Recognising each of K classes is a task, and few examples are better used if related tasks know of
each other. A linear model W = (w_1, …, w_K) is trained with the penalty

.. math:: \Omega_{C,\rho}(W) = \sum_{j,k} C_{jk} \lVert w_j - w_k \rVert^2
          + \rho \sum_k \lVert w_k \rVert^2,

whose graph C is learned: symmetric, non-negative, zero on its diagonal, and in the variant HMTL-S
with a bounded sum, Σ_jk C_jk <= R. Beside it, single-task learning (C = 0), and naive multi-task
learning (C_jk = a for all pairs), with a and ρ found on a grid. The model of the lowest validation
loss is trained again on training and validation set together, and judged on the test set.
"""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.parts.image_data import IMAGE_SETS, ImageSplit, Part, load_image_split
from rfho.experiments.parts.network import (
    Examples,
    Network,
    accuracy,
    blank_network,
    cross_entropy,
    squared_weights,
)
from rfho.experiments.task_interactions.image_features import described, load_feature_split
from rfho.experiments.task_interactions.report import (
    HMTL,
    HMTL_S,
    NMTL,
    STL,
    Chosen,
    add_graph,
    add_losses,
    results,
)
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.table import to_rich

Hyper = dict[str, Array]

PENALTIES = (0.0, *np.geomspace(1e-4, 10.0, 11).tolist())
INTERACTIONS = (0.0, *np.geomspace(1e-5, 1.0, 11).tolist())


@dataclasses.dataclass(frozen=True)
class InteractionSettings:
    """The examples, their training, and how the graph is learned."""

    data: str = setting(
        "digits",
        "digits, mnist, or cifar-10, which gets features learned without labels",
        IMAGE_SETS,
    )
    features: str = setting("", "an npz file of features and labels, to be used instead of data")
    words: int = setting(200, "k-means centres; 4 features for each", at_least(2))
    per_class: int = setting(5, "training examples per class, and as many to validate", at_least(1))
    test: int = setting(1500, "test examples", at_least(10))
    splits: int = setting(5, "random splits", at_least(2))
    horizon: int = setting(150, "inner steps T", at_least(1))
    rate: float = setting(0.1, "inner rate", above(0))
    momentum: float = setting(0.9, "of the inner steps", at_least(0))
    steps: int = setting(50, "outer steps", at_least(1))
    outer_rate: float = setting(1e-3, "rate of Adam on C and ρ", above(0))
    radius: float = setting(1e-3, "R of HMTL-S: bound on the sum of all C_jk", above(0))
    seed: int = setting(0, "of the first split; the others follow", at_least(0))


def run(settings: InteractionSettings, folder: RunFolder, console: Console) -> None:
    """All methods on every split."""
    found: dict[str, list[Chosen]] = {STL: [], NMTL: [], HMTL: [], HMTL_S: []}
    names: tuple[str, ...] = ()
    with until_interrupted(folder, console):
        for split in range(settings.splits):
            data = load_split(settings, settings.seed + split)
            names = data.class_names
            for method in found:
                found[method].append(carry_out(method, data, settings, folder=folder, split=split))
            shown = ", ".join(f"{name} {each[-1].accuracy:.1f} %" for name, each in found.items())
            console.print(f"split {split + 1}: {shown}")
    if not found[STL]:
        return
    for method in (HMTL, HMTL_S):
        add_graph(folder, method, found[method], names)
    add_losses(folder)
    table = results(found, settings.data, note=_note(settings, len(found[STL])))
    folder.add_table("accuracy", table)
    console.print(to_rich(table))


def load_split(settings: InteractionSettings, seed: int) -> ImageSplit:
    """Features of a file, features learned without labels from pictures, or plain images.

    Raises:
        SettingsError: there are too few examples, or the file holds no features.
        DataNotFoundError, DataFormatError: files are missing or damaged.
    """
    size = 10 * settings.per_class
    sizes = (size, size, settings.test)
    if settings.features:
        return load_feature_split(settings.features, sizes, seed=seed)
    split = load_image_split(settings.data, sizes, seed=seed)
    return described(split, words=settings.words, seed=seed) if len(split.shape) == 3 else split


def carry_out(
    method: str, data: ImageSplit, settings: InteractionSettings, *, folder: RunFolder, split: int
) -> Chosen:
    """Chooses C and ρ by the validation set, and trains again on both sets."""
    problem = training(data.train, data.valid, settings)
    match method:
        case "STL":
            hyper = of_grid(problem, [(0.0, penalty) for penalty in PENALTIES], settings)
        case "NMTL":
            pairs = [(a, penalty) for a in INTERACTIONS for penalty in PENALTIES]
            hyper = of_grid(problem, pairs, settings)
        case _:
            hyper = learn(problem, method, settings, folder=folder, split=split)
    both = _joined(data.train, data.valid)
    final = training(both, data.test, settings)
    return Chosen(jax.device_get(hyper), 100 * float(_accuracy_of(final, hyper)))


def penalised_loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
    """Cross-entropy and Ω."""
    weights = network[0]["weight"]  # (features, classes): column k is w_k
    products = weights.T @ weights
    lengths = jnp.diagonal(products)
    gaps = lengths[:, None] + lengths[None, :] - 2 * products  # ‖w_j - w_k‖²
    interaction = jnp.sum(hyper["C"] * gaps)
    return cross_entropy(network, batch) + interaction + hyper["rho"] * squared_weights(network)


def validation_loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
    """E: the cross-entropy alone."""
    return cross_entropy(network, batch)


def training(train: Part, judges: Part, settings: InteractionSettings) -> rfho.Problem:
    """Softmax regression from zero, by gradient descent with momentum on the whole set."""
    return rfho.Problem(
        rfho.Descent(
            penalised_loss,
            lambda hyper: optax.sgd(hyper["rate"], hyper["momentum"]),
            blank_network(train[0].shape[1], 10),
        ),
        validation_loss,
        train,
        judges,
        settings.horizon,
    )


def full_hyper(c: Array, rho: Array, settings: InteractionSettings) -> Hyper:
    """C and ρ with the rate and momentum, which are not learned."""
    fixed = {"rate": jnp.float32(settings.rate), "momentum": jnp.float32(settings.momentum)}
    return {"C": c, "rho": rho, **fixed}


def of_grid(
    problem: rfho.Problem, pairs: Sequence[tuple[float, float]], settings: InteractionSettings
) -> Hyper:
    """C_jk = a for j ≠ k, and ρ: the pair of the lowest validation loss."""
    a, rho = (jnp.asarray(column, jnp.float32) for column in zip(*pairs, strict=True))
    c = a[:, None, None] * (1 - jnp.eye(10, dtype=jnp.float32))
    fixed = full_hyper(c, rho, settings)
    best = int(np.nanargmin(np.asarray(_losses(problem, fixed))))
    return full_hyper(c[best], rho[best], settings)


def learn(
    problem: rfho.Problem,
    method: str,
    settings: InteractionSettings,
    *,
    folder: RunFolder,
    split: int,
) -> Hyper:
    """HMTL and HMTL-S: C and ρ from zero, by Reverse-HO; the step of the lowest validation loss."""
    radius = settings.radius if method == HMTL_S else None
    hyper = full_hyper(jnp.zeros((10, 10), jnp.float32), jnp.float32(0), settings)
    best, lowest = hyper, np.inf
    for report in rfho.iterate(
        problem,
        hyper,
        optim=optax.adam(settings.outer_rate),
        domain={
            "C": rfho.SymmetricNonNegative(radius),
            "rho": rfho.NonNegative(),
            "rate": rfho.Fixed(),
            "momentum": rfho.Fixed(),
        },
        steps=settings.steps,
    ):
        best, lowest = (hyper, report.value) if report.value < lowest else (best, lowest)
        hyper = report.hyper
        row = {"method": method, "split": split + 1, "step": report.step}
        folder.record(row | {"validation loss": report.value, "rho": float(hyper["rho"])})
    return jax.tree.map(jnp.asarray, best)


@eqx.filter_jit
def _losses(problem: rfho.Problem, hyper: Hyper) -> Array:
    axes = {"C": 0, "rho": 0, "rate": None, "momentum": None}
    method = rfho.hyper_gradients.ReverseHyperGradient()
    one = lambda hyper: method.conclude(problem, hyper, None)[0]  # noqa: E731
    return jax.vmap(one, in_axes=(axes,))(hyper)


@eqx.filter_jit
def _accuracy_of(problem: rfho.Problem, hyper: Hyper) -> Array:
    """That of the trained model on what judges it."""
    _, network = rfho.hyper_gradients.ReverseHyperGradient().conclude(problem, hyper, None)
    return accuracy(network, problem.valid)


def _joined(train: Part, valid: Part) -> Part:
    return np.concatenate([train[0], valid[0]]), np.concatenate([train[1], valid[1]])


def _note(settings: InteractionSettings, splits: int) -> str:
    return (
        f"{settings.per_class} training and {settings.per_class} validation examples per class, "
        f"{splits} splits, mean ± standard deviation; {settings.steps} outer steps, "
        f"{settings.horizon} inner steps; R = {settings.radius:g}."
    )


TASK_INTERACTIONS = Experiment(
    name="task-interactions",
    title="Learning task interactions",
    summary=(
        "Learns which classes are related, from five examples of each, as the graph of a multi-task "
        "penalty (arXiv 1703.01785, section 5.2)."
    ),
    quick=InteractionSettings(),
    full=InteractionSettings(data="cifar-10", test=2500, horizon=3000, rate=0.01, steps=250),
    run=run,
)
