r"""Where a hypergradient stops being useful (arXiv 1502.03492, the figure on chaotic learning).

Training is a dynamical system, and beyond some learning rate it is a chaotic one. The adjoint

.. math:: \alpha_{t-1} = \alpha_t A_t

then grows with every step back, and the hypergradient is exact and useless: the slope of one crease
of a surface that is crumpled everywhere. The loss itself hardly tells: it is still low there.
What tells is the growth of the adjoint, :math:`\lVert\alpha_0\rVert / \lVert\alpha_T\rVert`, that
every Reverse-HO estimate of rfho reports.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

import rfho
from rfho.experiments.base import Experiment, until_interrupted
from rfho.experiments.image_data import IMAGE_SETS, load_image_split
from rfho.experiments.network import Examples, Network, cross_entropy, random_network
from rfho.experiments.pictures import COLOURS, figure
from rfho.experiments.run_folder import RunFolder
from rfho.experiments.settings import above, at_least, between, setting
from rfho.experiments.table import Column, Table, make_table, to_rich

_KEYS = ("value", "hypergradient", "seed_norm", "adjoint_norm")


@dataclasses.dataclass(frozen=True)
class ChaosSettings:
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
    if len(found["value"]) < 3:
        return
    arrays = {key: np.array(values) for key, values in found.items()}
    arrays["rate"] = np.exp(log_rates[: len(found["value"])])
    arrays["growth"] = arrays["adjoint_norm"] / arrays["seed_norm"]
    arrays["secant"] = secants(np.log(arrays["rate"]), arrays["value"], settings.span)
    folder.add_arrays("chaos", arrays, "All curves:")
    folder.add_picture("chaos", draw(arrays, settings), _CAPTION)
    table = usefulness(arrays, settings)
    folder.add_table("usefulness", table)
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


def usefulness(arrays: dict[str, np.ndarray], settings: ChaosSettings) -> Table:
    """How well hypergradients predict the slope of their neighbourhood, calm rates and chaotic ones."""
    known = np.isfinite(arrays["hypergradient"]) & np.isfinite(arrays["secant"])
    with np.errstate(invalid="ignore"):
        chaotic = known & (arrays["growth"] > settings.growth)
    rows = []
    for name, mask in (("calm", known & ~chaotic), ("chaotic", chaotic)):
        exact, secant = arrays["hypergradient"][mask], arrays["secant"][mask]
        rows.append(
            [
                f"{name}: growth {'above' if name == 'chaotic' else 'up to'} {settings.growth:g}",
                int(mask.sum()),
                float(arrays["rate"][mask].min()) if mask.any() else None,
                float(arrays["rate"][mask].max()) if mask.any() else None,
                float(np.mean(np.sign(exact) == np.sign(secant))) if mask.any() else None,
                float(np.median(np.abs(exact))) if mask.any() else None,
                float(np.median(np.abs(secant))) if mask.any() else None,
            ]
        )
    columns = [
        Column("adjoint"),
        Column("how many", 0),
        Column("from"),
        Column("to"),
        Column("same sign as the slope around", 2),
        Column("median |hypergradient|"),
        Column("median |slope around|"),
    ]
    best = int(np.nanargmin(arrays["value"]))
    note = (
        f"The slope around a rate is fitted to the losses within {settings.span:g} decades. The "
        f"lowest loss, {arrays['value'][best]:.3g}, is at rate {arrays['rate'][best]:.3g}."
    )
    return make_table("Is the hypergradient of use?", columns, rows, note=note)


def draw(arrays: dict[str, np.ndarray], settings: ChaosSettings) -> Figure:
    """Loss, hypergradient and growth of the adjoint, one above the other over the rate."""
    drawn, axes = figure(3, 1, width=6.4, height=7.0)
    rates = arrays["rate"]
    top, middle, bottom = axes[:, 0]
    top.plot(rates, arrays["value"], color=COLOURS[0])
    top.set(ylabel="training loss\nafter T steps", yscale="log")
    middle.plot(rates, arrays["hypergradient"], ".", color=COLOURS[1], label="hypergradient")
    middle.plot(rates, arrays["secant"], color=COLOURS[6], label="slope of the loss around")
    middle.set_yscale("symlog", linthresh=1.0, linscale=3.0)
    middle.set_yticks([-1e12, -1e6, -1, 0, 1, 1e6, 1e12])
    middle.set(ylabel="derivative by log η")
    middle.legend(frameon=False, loc="upper left")
    bottom.plot(rates, arrays["growth"], color=COLOURS[2])
    bottom.axhline(settings.growth, color=COLOURS[6], linestyle=":")
    bottom.set(
        ylabel="growth of the adjoint\n" + r"$\|\alpha_0\|\ /\ \|\alpha_T\|$",
        yscale="log",
        xlabel="learning rate η",
    )
    for axis in (top, middle, bottom):
        _share_rates(axis, arrays, settings)
    return drawn


def _share_rates(axis: Axes, arrays: dict[str, np.ndarray], settings: ChaosSettings) -> None:
    rates = arrays["rate"]
    axis.set(xscale="log", xlim=(rates[0], rates[-1]))
    with np.errstate(invalid="ignore"):
        above_limit = np.flatnonzero(arrays["growth"] > settings.growth)
    if len(above_limit):
        begin, end = float(rates[above_limit[0]]), float(rates[-1])
        axis.axvspan(begin, end, color=COLOURS[5], alpha=0.12, linewidth=0)


_CAPTION = (
    "Above: the training loss after T steps against the learning rate. Middle: its derivative by the "
    "logarithm of the rate, exact at each rate, and the slope of the loss curve around it. Below: "
    "the growth of the adjoint on its way back. Shaded from the first rate at which it exceeds the "
    "dotted line: the hypergradient is exact there, and no guide."
)

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
