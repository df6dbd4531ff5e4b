r"""One penalty for each feature, by implicit differentiation (arXiv 1602.02355, 1911.02590, 2006.16218).

Softmax regression with weights W, one row w_j for each feature, minimises

.. math:: L(W, \lambda) = \mathrm{CE}(W; \text{training set})
          + \tfrac12 \sum_j e^{\lambda_j} \lVert w_j \rVert^2 ,

and λ, as long as the list of features, minimises the cross-entropy on the validation set. Every
method starts at the shared penalty that a grid finds best, with the model trained there. An outer
step is T inner steps from where the last one ended, and K products with the Hessian (or the T steps
back): the methods take turns, so that all of them meet the same machine.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console

import rfho
from rfho.experiments.feature_penalties.data import (
    FEATURE_SETS,
    FeatureSplit,
    SparseExamples,
    load_feature_split,
)
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ImplicitHyperGradient,
    ReverseHyperGradient,
    WarmRestartHyperGradient,
)
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.pictures import curves, histograms
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, between, setting
from rfho.runs.stopwatch import clock
from rfho.runs.study import Record, add_tables, grouped, tabulated, traced
from rfho.solvers import CG, Neumann, Nystrom

Hyper = Float[Array, " features"]
Params = Float[Array, "features classes"]

CG_NAME = "implicit, CG"
"""The method whose penalties are drawn."""

COLUMNS = {
    "penalties": None,
    "training loss": 3,
    "validation loss": 3,
    "validation accuracy %": 1,
    "test accuracy %": 1,
    "seconds per outer step": 3,
}


@dataclasses.dataclass(frozen=True)
class PenaltySettings:
    """The data, the inner training, and how the penalties are learned."""

    data: str = setting("digits", "data: digits or newsgroups", FEATURE_SETS)
    train: int = setting(200, "training examples", at_least(10))
    valid: int = setting(700, "validation examples", at_least(10))
    test: int = setting(700, "test examples; of newsgroups the official ones", at_least(10))
    noise: int = setting(128, "features without information, added to digits", at_least(0))
    words: int = setting(130_107, "words of newsgroups: the most frequent", at_least(10))
    inner: int = setting(20, "T: inner steps in an outer step", at_least(1))
    products: int = setting(20, "K: products of a solver", at_least(3))
    rate: float = setting(0.5, "of the inner steps", above(0))
    momentum: float = setting(0.9, "of the inner steps", between(0, 1))
    settle: int = setting(500, "inner steps of a training from zero", at_least(1))
    damping: float = setting(0.1, "ρ of the Nyström approximation", above(0))
    penalties: tuple[float, ...] = setting((1e-5, 1.0), "ends of the grid, and of e^λ", above(0))
    grid: int = setting(11, "shared penalties on the grid", at_least(2))
    steps: int = setting(100, "outer steps", at_least(2))
    outer_rate: float = setting(0.1, "rate of Adam on λ", above(0))
    seed: int = setting(0, "of the split", at_least(0))


def cross_entropy(params: Params, hyper: Hyper, batch: SparseExamples) -> Float[Array, ""]:
    """The mean over examples: E, on the validation set."""
    inputs, labels = batch
    losses = optax.softmax_cross_entropy_with_integer_labels(inputs @ params, labels)
    return jnp.mean(losses)


def penalised_loss(params: Params, hyper: Hyper, batch: SparseExamples) -> Float[Array, ""]:
    """L: the cross-entropy, and half of Σ_j exp(λ_j) ‖w_j‖²."""
    penalty = jnp.sum(jnp.exp(hyper) * jnp.sum(params**2, axis=1))
    return cross_entropy(params, hyper, batch) + 0.5 * penalty


def training(
    data: FeatureSplit, settings: PenaltySettings, init: Params, horizon: int
) -> rfho.Problem:
    """Gradient descent with momentum from ``init``, judged by the validation set."""
    optim = optax.sgd(settings.rate, settings.momentum)
    dynamics = rfho.Descent(penalised_loss, lambda hyper: optim, init)
    return rfho.Problem(dynamics, cross_entropy, data.train, data.valid, horizon)


def methods(settings: PenaltySettings) -> dict[str, AbstractHyperGradient]:
    """Four ways to solve the implicit system, and steps back; each starts where it last ended."""
    k = settings.products
    stationary = {
        CG_NAME: CG(max_products=k),
        "implicit, Neumann series": Neumann(k, settings.rate),
        "implicit, Nyström": Nystrom(min(k, 64), settings.damping),
    }
    fixed_point = ImplicitHyperGradient(Neumann(k, 1.0), condition=rfho.FixedPoint(), audit=None)
    return {
        **{name: ImplicitHyperGradient(solver, audit=None) for name, solver in stationary.items()},
        "implicit, fixed point": fixed_point,
        "reverse": WarmRestartHyperGradient(ReverseHyperGradient()),
    }


def run(settings: PenaltySettings, folder: RunFolder, console: Console) -> None:
    """A grid for one shared penalty, then all methods in turn for one penalty per feature."""
    sizes = (settings.train, settings.valid, settings.test)
    data = load_feature_split(
        settings.data, sizes, noise=settings.noise, words=settings.words, seed=settings.seed
    )
    zeros = jnp.zeros((data.features, data.classes), jnp.float32)
    anew = training(data, settings, zeros, settings.settle)
    learned: dict[str, Hyper] = {}
    with until_interrupted(folder, console):
        grid = shared(anew, data, settings, folder=folder, console=console)
        _, start, params = min(grid, key=lambda tried: tried[0])
        learned["one shared penalty, by grid"] = start
        problem = training(data, settings, params, settings.inner)
        for name, hyper in learn(problem, start, settings, folder=folder, console=console):
            learned[name] = hyper
    if len(learned) < 2:
        return
    history = grouped((row for row in folder.history() if "step" in row), "method")
    folder.add_picture("losses", draw(history), _LOSSES)
    records: list[Record] = []
    for name, hyper in learned.items():
        value, params = rfho.train(anew, hyper)
        found = name, cross_entropy(params, hyper, data.train), value
        right = (100 * accuracy(params, part) for part in (data.valid, data.test))
        seconds = np.median(steady_seconds(history[name])) if name in history else None
        known = (*found, *right, seconds)
        records.append(dict(zip(COLUMNS, known, strict=True)))
    note = (
        f"{data.train[0].shape[0]} training, {data.valid[0].shape[0]} validation and "
        f"{data.test[0].shape[0]} test examples, {data.features} features, {data.classes} classes; "
        f"T = {settings.inner}, K = {settings.products}, up to {settings.steps} outer steps. All models "
        f"are trained from zero for {settings.settle} steps. CPU seconds, median, without compilation."
    )
    title = f"One penalty per feature: {settings.data}"
    add_tables(folder, console, {"results": tabulated(title, records, COLUMNS, note=note)})
    add_penalties(folder, learned, data)


def shared(
    problem: rfho.Problem,
    data: FeatureSplit,
    settings: PenaltySettings,
    *,
    folder: RunFolder,
    console: Console,
) -> Iterator[tuple[float, Hyper, Params]]:
    """Trainings from zero at every penalty of the grid: validation loss (∞ where it is none), λ and W."""
    for penalty in np.geomspace(settings.penalties[0], settings.penalties[-1], settings.grid):
        hyper = jnp.full(data.features, np.log(penalty), jnp.float32)
        value, params = rfho.train(problem, hyper)
        folder.record({"shared penalty": penalty, "validation loss": float(value)})
        console.print(f"shared penalty {penalty:.2g}: validation loss {float(value):.4f}")
        yield float(jnp.nan_to_num(value, nan=jnp.inf)), hyper, params


def learn(
    problem: rfho.Problem,
    start: Hyper,
    settings: PenaltySettings,
    *,
    folder: RunFolder,
    console: Console,
) -> Iterator[tuple[str, Hyper]]:
    """All methods in turn, step by step: each step's name and λ; a method that fails is left out."""
    ends = np.log(settings.penalties)
    domain = rfho.Box(float(ends.min()) - 0.01, float(ends.max()) + 0.01)
    loops = {name: OuterLoop(folder, name) for name in methods(settings)}
    runs = {
        name: rfho.iterate(
            problem,
            start,
            method=method,
            optim=optax.adam(settings.outer_rate),
            domain=domain,
            steps=settings.steps,
            run=loops[name],
        )
        for name, method in methods(settings).items()
    }
    for step in range(1, settings.steps + 1):
        for name in tuple(runs):
            begin = clock()
            try:
                report = next(runs[name])
            except rfho.HyperGradientError as error:
                said = f"{name} is left out from outer step {step} on: {error}"
                console.print(said, markup=False)
                del runs[name]
                continue
            seconds = clock() - begin if step > loops[name].replayed else None
            row = {"method": name, "step": step, "seconds": seconds}
            folder.record(row | {"validation loss": report.value, **report.stats})
            yield name, jnp.asarray(report.hyper)
        if step % 10 == 0:
            console.print(f"outer step {step} of {settings.steps}")


@jax.jit
def accuracy(params: Params, examples: SparseExamples) -> Float[Array, ""]:
    """The share of examples whose largest logit is that of their label."""
    inputs, labels = examples
    return jnp.mean((jnp.argmax(inputs @ params, axis=1) == labels).astype(params.dtype))


def draw(history: Mapping[str, Sequence[Record]]) -> Figure:
    """Validation loss against seconds, compilation left out."""
    return curves(
        {name: traced(rows, "validation loss") for name, rows in history.items()},
        {name: np.cumsum(steady_seconds(rows)) for name, rows in history.items()},
        x_label="CPU seconds of outer steps",
        y_label="validation loss (cross-entropy)",
    )


def steady_seconds(rows: Sequence[Record]) -> Float[np.ndarray, " steps"]:
    """CPU seconds of each outer step: the median where it was compiled, or taken before the run was resumed."""
    seconds = traced(rows, "seconds")[0]
    seconds[np.flatnonzero(np.isfinite(seconds))[:1]] = np.nan  # the first one compiles
    known = seconds[np.isfinite(seconds)]
    return np.nan_to_num(seconds, nan=np.median(known) if len(known) else np.nan)


def add_penalties(folder: RunFolder, learned: Mapping[str, Hyper], data: FeatureSplit) -> None:
    """What conjugate gradients learned, by kind of feature."""
    names = {name: name.replace(",", "").replace(" ", "-") for name in learned}
    arrays = {names[name]: np.asarray(hyper) for name, hyper in learned.items()}
    folder.add_arrays("penalties", arrays, "λ of every method:")
    if CG_NAME not in learned:
        return
    powers = np.asarray(learned[CG_NAME]) / np.log(10)
    drawn = histograms(
        {name: powers[mask] for name, mask in data.groups.items() if mask.any()},
        x_label=r"learned penalty, $\log_{10} e^{\lambda_j}$",
        y_label="features",
    )
    folder.add_picture("penalties", drawn, "Penalties learned by conjugate gradients.")


_LOSSES = (
    "The validation loss at each outer step against the CPU seconds spent, without compilation. All "
    "methods start at the best shared penalty and at the model trained with it."
)

FEATURE_PENALTIES = Experiment(
    name="feature-penalties",
    title="One penalty for each feature",
    summary=(
        "Learns one L2 penalty per feature of sparse data by implicit differentiation with four "
        "solvers, and by steps back (arXiv 1602.02355, 1911.02590, 2006.16218)."
    ),
    quick=PenaltySettings(),
    full=PenaltySettings(
        data="newsgroups",
        train=5657,
        valid=5657,
        inner=10,
        products=10,
        rate=100.0,
        settle=200,
        damping=0.01,
        penalties=(1e-8, 1e-4),
        grid=5,
        steps=30,
        outer_rate=0.3,
    ),
    run=run,
)
