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
from collections.abc import Iterator, Sequence

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
from rfho.experiments.task_interactions.features import described, load_feature_split
from rfho.runs.experiment import Experiment
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.pictures import curves, heat_map
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.study import Record, Study, add_tables, gained, grouped, median, traced

Hyper = dict[str, Array]

STL, NMTL, HMTL, HMTL_S = "STL", "NMTL", "HMTL", "HMTL-S"
METHODS = {
    STL: "C = 0, ρ of a grid",
    NMTL: "C_jk = a, a and ρ of a grid",
    HMTL: "C and ρ learned",
    HMTL_S: "likewise, Σ C <= R",
}
COLUMNS = {
    "method": None,
    "test accuracy %": 2,
    "more than STL": 2,
    "ρ (median)": None,
    "Σ C (median)": None,
}
MEDIANS = {"ρ (median)": median, "Σ C (median)": median}
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


def penalised_loss(network: Network, hyper: Hyper, batch: Examples) -> Array:
    """Cross-entropy and Ω."""
    weights = network[0]["weight"]  # (features, classes): column k is w_k
    products = weights.T @ weights
    lengths = jnp.diagonal(products)
    gaps = lengths[:, None] + lengths[None, :] - 2 * products  # ‖w_j - w_k‖²
    interaction = jnp.sum(hyper["C"] * gaps)
    return (
        cross_entropy(network, hyper, batch) + interaction + hyper["rho"] * squared_weights(network)
    )


def training(train: Part, judges: Part, settings: InteractionSettings) -> rfho.Problem:
    """Softmax regression from zero, by gradient descent with momentum; E is the cross-entropy alone."""
    dynamics = rfho.Descent(
        penalised_loss,
        lambda hyper: optax.sgd(hyper["rate"], hyper["momentum"]),
        blank_network(train[0].shape[1], 10),
    )
    return rfho.Problem(dynamics, cross_entropy, train, judges, settings.horizon)


def learn(
    problem: rfho.Problem,
    settings: InteractionSettings,
    radius: float | None,
    *,
    run: OuterLoop | None = None,
) -> Iterator[tuple[Hyper, rfho.outer.Report]]:
    """HMTL and, with a radius, HMTL-S: C and ρ from zero, by Reverse-HO; λ before each outer step."""
    hyper = full_hyper(jnp.zeros((10, 10), jnp.float32), jnp.float32(0), settings)
    domain = {
        "C": rfho.domains.SymmetricNonNegative(radius),
        "rho": rfho.NonNegative(),
        "rate": rfho.Fixed(),
        "momentum": rfho.Fixed(),
    }
    optim = optax.adam(settings.outer_rate)
    steps = settings.steps
    for report in rfho.iterate(problem, hyper, optim=optim, domain=domain, steps=steps, run=run):
        yield hyper, report
        hyper = report.hyper


def of_grid(
    problem: rfho.Problem, settings: InteractionSettings, interactions: Sequence[float]
) -> Hyper:
    """STL and NMTL: C_jk = a for j ≠ k, and ρ, the pair of the lowest validation loss."""
    pairs = [(a, penalty) for a in interactions for penalty in PENALTIES]
    a, rho = (jnp.asarray(column, jnp.float32) for column in zip(*pairs, strict=True))
    c = a[:, None, None] * (1 - jnp.eye(10, dtype=jnp.float32))
    losses = _losses(problem, full_hyper(c, rho, settings))
    best = int(np.nanargmin(np.asarray(losses)))
    return full_hyper(c[best], rho[best], settings)


def full_hyper(c: Array, rho: Array, settings: InteractionSettings) -> Hyper:
    """C and ρ with the rate and momentum, which are not learned."""
    fixed = {"rate": jnp.float32(settings.rate), "momentum": jnp.float32(settings.momentum)}
    return {"C": c, "rho": rho, **fixed}


def run(settings: InteractionSettings, folder: RunFolder, console: Console) -> None:
    """All methods on every split."""

    def on_split(split: int) -> Iterator[Record]:
        data = load_split(settings, settings.seed + split - 1)
        problem = training(data.train, data.valid, settings)
        images, labels = (
            np.concatenate(parts) for parts in zip(data.train, data.valid, strict=True)
        )
        final = training((images, labels), data.test, settings)
        for method in METHODS:
            hyper = jax.device_get(chosen(method, problem, settings, folder=folder, split=split))
            right = 100 * float(_accuracy_of(final, hyper))
            found = {"ρ (median)": hyper["rho"], "Σ C (median)": hyper["C"].sum(), "C": hyper["C"]}
            yield {"method": method, "test accuracy %": right, "names": data.class_names} | found

    study = Study(METHODS, range(1, settings.splits + 1), on_split, COLUMNS, MEDIANS)
    records = study.carry_out(folder, console)
    if not records:
        return
    add_graphs(folder, records)
    add_losses(folder)
    note = (
        f"{settings.per_class} training and {settings.per_class} validation examples per class, "
        f"{len(grouped(records, 'case'))} splits, mean ± standard deviation; {settings.steps} outer "
        f"steps, {settings.horizon} inner steps; R = {settings.radius:g}."
    )
    records = gained(records, "test accuracy %", over=STL, as_name="more than STL")
    table = study.table(f"Learning task interactions: {settings.data}", records, note)
    add_tables(folder, console, {"accuracy": table})


def load_split(settings: InteractionSettings, seed: int) -> ImageSplit:
    """Features of a file, features learned without labels from pictures, or plain images."""
    size = 10 * settings.per_class
    sizes = (size, size, settings.test)
    if settings.features:
        return load_feature_split(settings.features, sizes, seed=seed)
    split = load_image_split(settings.data, sizes, seed=seed)
    return described(split, words=settings.words, seed=seed) if len(split.shape) == 3 else split


def chosen(
    method: str,
    problem: rfho.Problem,
    settings: InteractionSettings,
    *,
    folder: RunFolder,
    split: int,
) -> Hyper:
    """C and ρ of the lowest validation loss that the method finds."""
    if method in (STL, NMTL):
        return of_grid(problem, settings, (0.0,) if method == STL else INTERACTIONS)
    best, lowest = {}, np.inf
    radius = settings.radius if method == HMTL_S else None
    loop = OuterLoop(folder, f"{method} {split}")
    for hyper, report in learn(problem, settings, radius, run=loop):
        if not best or report.value < lowest:
            best, lowest = hyper, report.value
        row = {"method": method, "split": split, "step": report.step}
        rho = float(report.hyper["rho"])
        folder.record(row | {"validation loss": report.value, "rho": rho})
    return best


def add_graphs(folder: RunFolder, records: Sequence[Record]) -> None:
    """The graphs: C, scaled to its largest entry on each split, and averaged over the splits."""
    for method in (HMTL, HMTL_S):
        alike = grouped(records, "method").get(method, [])
        if not alike:
            continue
        graphs, names = np.stack([record["C"] for record in alike]), alike[0]["names"]
        scaled = graphs / np.maximum(graphs.max(axis=(1, 2), keepdims=True), 1e-12)
        drawn = heat_map(scaled.mean(axis=0), names, names, label="C, largest entry = 1")
        name = method.lower()
        folder.add_arrays(f"{name}-graphs", {"C": graphs}, f"{method}, C on each split:")
        folder.add_picture(f"{name}-graph", drawn, f"{method}: {_GRAPH}")


def add_losses(folder: RunFolder) -> None:
    """Validation losses by outer step, mean and standard deviation over the splits."""
    rows = grouped(folder.history(), "method").items()
    series = {method: traced(alike, "validation loss", over="split") for method, alike in rows}
    if series:
        drawn = curves(series, x_label="outer step", y_label="validation loss")
        folder.add_picture("losses", drawn, "Validation loss by outer step, over the splits.")


@eqx.filter_jit
def _losses(problem: rfho.Problem, hyper: Hyper) -> Array:
    axes = {"C": 0, "rho": 0, "rate": None, "momentum": None}
    return jax.vmap(lambda one: rfho.train(problem, one).value, in_axes=(axes,))(hyper)


@eqx.filter_jit
def _accuracy_of(problem: rfho.Problem, hyper: Hyper) -> Array:
    return accuracy(rfho.train(problem, hyper).params, problem.valid)


_GRAPH = "which classes share, C divided by its largest entry, mean over the splits."

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
