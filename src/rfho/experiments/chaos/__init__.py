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
import itertools
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

import rfho
from rfho.experiments.parts.image_data import IMAGE_SETS, load_image_split
from rfho.experiments.parts.network import cross_entropy, random_network
from rfho.runs.about import INTERRUPTED
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.pictures import COLOURS, figure
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import SettingsError, above, at_least, between, setting
from rfho.runs.study import Record, add_tables, median, tabulated
from rfho.runs.table import Table

_KEYS = ("value", "hypergradient", "seed_norm", "adjoint_norm")

NOTHING = "nothing"
"""What is said where `rfho.diagnose` has no finding."""

_COUNTED = {"how many": 0, "from": None, "to": None, "same sign as the slope around": 2}
_REDUCTIONS = {
    "how many": len,
    "from": lambda rates: float(rates.min()),
    "to": lambda rates: float(rates.max()),
    "same sign as the slope around": lambda same: float(same.mean()),
    "median |hypergradient|": median,
    "median |slope around|": median,
}


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

    def __post_init__(self) -> None:
        if self.rates[0] >= self.rates[-1]:
            raise SettingsError(f"rates = {list(self.rates)}: the first must be below the last")


def training(settings: ChaosSettings) -> rfho.Problem:
    """A network with two hidden layers; E is the training loss itself, λ the logarithm of the rate."""
    data = load_image_split(settings.data, (settings.train, 10, 10), seed=settings.seed)
    widths = (data.pixels, settings.hidden, settings.hidden, len(data.class_names))
    dynamics = rfho.HeavyBall(
        cross_entropy,
        rate=lambda log_rate, t: jnp.exp(log_rate),
        momentum=lambda log_rate, t: settings.momentum,
        init=random_network(widths, seed=settings.seed),
    )
    return rfho.Problem(dynamics, cross_entropy, data.train, data.train, settings.horizon)


@eqx.filter_jit
def estimates(problem: rfho.Problem, log_rates: Array) -> dict[str, Array]:
    """f, df / d log η and the norms of the adjoint at its end and its start, for several rates."""

    def one(log_rate: Array) -> dict[str, Array]:
        estimate = rfho.hyper_gradient(problem, log_rate)
        seen = {"value": estimate.value, "hypergradient": estimate.hypergradient}
        return seen | estimate.aux.stats

    return jax.vmap(one)(log_rates)


def run(settings: ChaosSettings, folder: RunFolder, console: Console) -> None:
    """Computes loss, hypergradient and growth of the adjoint at every rate."""
    problem = training(settings)
    log_rates = np.log(np.geomspace(settings.rates[0], settings.rates[-1], settings.points))
    rows: list[Record] = []
    with until_interrupted(folder, console):
        for begin in range(0, settings.points, settings.at_once):
            chunk = log_rates[begin : begin + settings.at_once]
            found = estimates(problem, jnp.asarray(chunk, jnp.float32))
            for index, log_rate in enumerate(chunk):
                numbers = {key: float(found[key][index]) for key in _KEYS}
                rows.append({"step": begin + index + 1, "rate": np.exp(log_rate)} | numbers)
                folder.record(rows[-1])
            console.print(f"{len(rows)} of {settings.points} rates")
    findings: dict[int, str] = {}
    with until_interrupted(folder, console):
        known = len(rows) if folder.about().status != INTERRUPTED else 0
        for index in evenly(known, settings.examined):
            diagnosis = rfho.diagnose(problem, jnp.float32(log_rates[index]))
            kinds = sorted(kind.name.lower() for kind in diagnosis.kinds)
            findings[index] = ", ".join(kinds) or NOTHING
            console.print(f"rfho.diagnose, rate {np.exp(log_rates[index]):.3g}: {findings[index]}")
    if len(rows) < 3:
        return
    arrays = {key: np.array([row[key] for row in rows]) for key in rows[0] if key != "step"}
    arrays["growth"] = arrays["adjoint_norm"] / arrays["seed_norm"]
    arrays["secant"] = secants(np.log(arrays["rate"]), arrays["value"], settings.span)
    folder.add_arrays("chaos", arrays, "All curves:")
    folder.add_picture("chaos", draw(arrays, findings, limit=settings.growth), CAPTION)
    add_tables(folder, console, tables(arrays, findings, settings))


def evenly(known: int, count: int) -> list[int]:
    """Up to ``count`` of the indices 0 … known - 1, equally far apart."""
    places = np.linspace(0, max(0, known - 1), min(count, known))
    return np.unique(places.round().astype(int)).tolist()


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


def tables(
    arrays: Mapping[str, np.ndarray], findings: Mapping[int, str], settings: ChaosSettings
) -> dict[str, Table]:
    """How well hypergradients predict the slope of their neighbourhood: by growth, and by diagnosis."""
    exact, secant, rates = (arrays[key] for key in ("hypergradient", "secant", "rate"))
    same = (np.sign(exact) == np.sign(secant)).astype(float)
    names = f"calm: growth up to {settings.growth:g}", f"chaotic: growth above {settings.growth:g}"
    records: list[Record] = [
        {
            "adjoint": names[bool(chaotic)],
            "rfho.diagnose finds": findings.get(index),
            "how many": 1,
            "from": rates[index],
            "to": rates[index],
            "same sign as the slope around": same[index],
            "median |hypergradient|": abs(exact[index]),
            "median |slope around|": abs(secant[index]),
        }
        for index, chaotic in enumerate(arrays["growth"] > settings.growth)
    ]
    known = np.isfinite(exact) & np.isfinite(secant)
    best = int(np.nanargmin(arrays["value"]))
    note = (
        f"The slope around a rate is fitted to the losses within {settings.span:g} decades. The "
        f"lowest loss, {arrays['value'][best]:.3g}, is at rate {arrays['rate'][best]:.3g}."
    )
    calm_first = sorted(itertools.compress(records, known), key=lambda record: record["adjoint"])
    sizes = dict.fromkeys(["median |hypergradient|", "median |slope around|"])
    by_growth = tabulated(
        "Is the hypergradient of use?",
        calm_first,
        {"adjoint": None, **_COUNTED, **sizes},
        by="adjoint",
        of=_REDUCTIONS,
        note=note,
    )
    by_finding = tabulated(
        "What the diagnosis says of the same points",
        [records[index] for index in findings],
        {"rfho.diagnose finds": None, **_COUNTED},
        by="rfho.diagnose finds",
        of=_REDUCTIONS,
    )
    return {"usefulness": by_growth, "diagnosis": by_finding}


def draw(arrays: Mapping[str, np.ndarray], findings: Mapping[int, str], *, limit: float) -> Figure:
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
    _draw_growth(bottom, arrays, findings, limit)
    chaotic = rates[arrays["growth"] > limit]
    for axis in (top, middle, bottom):
        axis.set(xscale="log", xlim=(rates[0], rates[-1]))
        if len(chaotic):
            axis.axvspan(chaotic[0], rates[-1], color=COLOURS[5], alpha=0.12, linewidth=0)
    return drawn


def _draw_growth(
    axis: Axes, arrays: Mapping[str, np.ndarray], findings: Mapping[int, str], limit: float
) -> None:
    """The growth of the adjoint; upon it, the rates that were examined."""
    rates, growth = arrays["rate"], arrays["growth"]
    axis.plot(rates, growth, color=COLOURS[2])
    axis.axhline(limit, color=COLOURS[6], linestyle=":")
    for name, marker, colour in ((NOTHING, "o", COLOURS[2]), ("something", "X", COLOURS[1])):
        at = [index for index, said in findings.items() if (said == NOTHING) == (name == NOTHING)]
        if at:
            label = f"rfho.diagnose finds {name}"
            (marks,) = axis.plot(rates[at], growth[at], marker, color=colour, label=label)
            marks.set(fillstyle="none", clip_on=False)
    if findings:
        axis.legend(frameon=False, loc="upper left")
    norms = r"$\|\alpha_0\|\ /\ \|\alpha_T\|$"
    axis.set(ylabel=f"growth of the adjoint\n{norms}", yscale="log", xlabel="learning rate η")


CAPTION = (
    "Above: the training loss after T steps against the learning rate. Middle: its derivative by the "
    "logarithm of the rate, exact at each rate, and the slope of the loss curve around it. Below: "
    "the growth of the adjoint on its way back, and what rfho.diagnose says of some of the rates. "
    "Shaded from the first rate at which growth exceeds the dotted line: the hypergradient is exact "
    "there, and no guide."
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
