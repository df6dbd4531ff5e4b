r"""Where a hypergradient stops being useful (arXiv 1502.03492, the figure on chaotic learning).

Training is a dynamical system, and beyond some learning rate it is a chaotic one. The adjoint

.. math:: \alpha_{t-1} = \alpha_t A_t

then grows with every step back, and the hypergradient is exact and useless: the slope of one crease
of a surface that is crumpled everywhere. The loss itself hardly tells: it is still low there.
What tells is the growth of the adjoint, :math:`\lVert\alpha_0\rVert / \lVert\alpha_T\rVert`, that
every Reverse-HO estimate of rfho reports. Some of the rates are examined by `rfho.diagnose` too, which
also asks whether hypergradients at near points have the same sign.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich.console import Console

import rfho
from rfho.experiments.chaos.report import CAPTION, NOTHING, diagnosis, draw, usefulness
from rfho.experiments.parts.image_data import IMAGE_SETS, load_image_split
from rfho.experiments.parts.network import Examples, Network, cross_entropy, random_network
from rfho.runs.about import INTERRUPTED
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, between, setting
from rfho.runs.table import to_rich

_KEYS = ("value", "hypergradient", "seed_norm", "adjoint_norm")


@dataclasses.dataclass(frozen=True)
class ChaosSettings:
    """What is trained, at which rates, and what counts as chaos."""

    data: str = setting("digits", "images: digits, mnist or cifar-10", IMAGE_SETS)
    train: int = setting(400, "training examples", at_least(10))
    hidden: int = setting(32, "units in each of the two hidden layers", at_least(1))
    horizon: int = setting(50, "inner steps T", at_least(2))
    momentum: float = setting(0.9, "of the inner steps", between(0, 1))
    rates: tuple[float, ...] = setting((0.003, 10.0), "ends of the axis of the rate", above(0))
    points: int = setting(200, "rates, equally far apart on a logarithmic axis", at_least(5))
    at_once: int = setting(20, "rates whose runs are computed side by side", at_least(1))
    span: float = setting(0.1, "decades of the rate that count as one neighbourhood", above(0))
    growth: float = setting(100.0, "growth of the adjoint that is called chaotic", above(0))
    examined: int = setting(20, "rates among them that rfho.diagnose examines", at_least(0))
    seed: int = setting(0, "of examples and initial network", at_least(0))


def run(settings: ChaosSettings, folder: RunFolder, console: Console) -> None:
    """Computes loss, hypergradient and growth of the adjoint at every rate."""
    problem = training(settings)
    log_rates = np.log(np.geomspace(settings.rates[0], settings.rates[-1], settings.points))
    found: dict[str, list[float]] = {key: [] for key in _KEYS}
    with until_interrupted(folder, console):
        for begin in range(0, settings.points, settings.at_once):
            chunk = log_rates[begin : begin + settings.at_once]
            estimated = estimates(problem, jnp.asarray(chunk, jnp.float32))
            for index, log_rate in enumerate(chunk):
                numbers = {key: float(estimated[key][index]) for key in _KEYS}
                folder.record({"step": begin + index + 1, "rate": np.exp(log_rate), **numbers})
                for key in _KEYS:
                    found[key].append(numbers[key])
            console.print(f"{len(found['value'])} of {settings.points} rates")
    findings: dict[int, str] = {}
    with until_interrupted(folder, console):
        known = len(found["value"]) if folder.about().status != INTERRUPTED else 0
        for index in evenly(known, settings.examined):
            findings[index] = examined(problem, log_rates[index])
            console.print(f"rfho.diagnose, rate {np.exp(log_rates[index]):.3g}: {findings[index]}")
    if len(found["value"]) < 3:
        return
    arrays = {key: np.array(values) for key, values in found.items()}
    arrays["rate"] = np.exp(log_rates[: len(found["value"])])
    arrays["growth"] = arrays["adjoint_norm"] / arrays["seed_norm"]
    arrays["secant"] = secants(np.log(arrays["rate"]), arrays["value"], settings.span)
    folder.add_arrays("chaos", arrays, "All curves:")
    folder.add_picture("chaos", draw(arrays, findings, limit=settings.growth), CAPTION)
    tables = {
        "usefulness": usefulness(arrays, limit=settings.growth, span=settings.span),
        "diagnosis": diagnosis(arrays, findings),
    }
    for name, table in tables.items():
        folder.add_table(name, table)
        console.print(to_rich(table))


def training(settings: ChaosSettings) -> rfho.Problem:
    """A network with two hidden layers; E is the training loss itself, λ the logarithm of the rate."""
    data = load_image_split(settings.data, (settings.train, 10, 10), seed=settings.seed)
    widths = (data.pixels, settings.hidden, settings.hidden, len(data.class_names))

    def loss(network: Network, hyper: Array, batch: Examples) -> Array:
        return cross_entropy(network, batch)

    dynamics = rfho.HeavyBall(
        loss,
        rate=lambda log_rate, t: jnp.exp(log_rate),
        momentum=lambda log_rate, t: settings.momentum,
        init=random_network(widths, seed=settings.seed),
    )
    return rfho.Problem(dynamics, loss, data.train, data.train, settings.horizon)


@eqx.filter_jit
def estimates(problem: rfho.Problem, log_rates: Array) -> dict[str, Array]:
    """f, df / d log η and the norms of the adjoint at its end and its start, for several rates."""
    method = rfho.hyper_gradients.ReverseHyperGradient()

    def one(log_rate: Array) -> dict[str, Array]:
        estimate, _ = method.estimate(problem, log_rate, None)
        seen = {"value": estimate.value, "hypergradient": estimate.hypergradient}
        return seen | estimate.aux.stats

    return jax.vmap(one)(log_rates)


def evenly(known: int, count: int) -> list[int]:
    """Up to ``count`` of the indices 0 … known - 1, equally far apart."""
    places = np.linspace(0, max(0, known - 1), min(count, known))
    return np.unique(places.round().astype(int)).tolist()


def examined(problem: rfho.Problem, log_rate: float) -> str:
    """What `rfho.diagnose` finds at a rate."""
    found = rfho.diagnose(problem, jnp.float32(log_rate))
    return ", ".join(sorted(kind.name.lower() for kind in found.kinds)) or NOTHING


def secants(log_rates: np.ndarray, values: np.ndarray, span: float) -> np.ndarray:
    """The slope of f over a neighbourhood of each rate: a straight line fitted by least squares."""
    reach = span * np.log(10) / 2
    slopes = np.full(len(values), np.nan)
    for index, centre in enumerate(log_rates):
        near = (np.abs(log_rates - centre) <= max(reach, 1.01 * (log_rates[1] - log_rates[0]))) & (
            np.isfinite(values)
        )
        if near.sum() >= 2:
            slopes[index] = np.polyfit(log_rates[near] - centre, values[near], 1)[0]
    return slopes


CHAOS = Experiment(
    name="chaos",
    title="Where hypergradients stop being useful",
    summary=(
        "Computes the hypergradient of the learning rate at many rates, and beside it the growth of "
        "the adjoint, which tells where training is chaotic (arXiv 1502.03492)."
    ),
    quick=ChaosSettings(),
    full=ChaosSettings(data="mnist", train=2000, hidden=50, points=600),
    run=run,
)
