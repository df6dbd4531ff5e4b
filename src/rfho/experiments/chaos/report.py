"""What hypergradients of the rate show: of what use they are, by growth and by diagnosis."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfho.runs.pictures import COLOURS, figure
from rfho.runs.table import Column, Table, make_table

NOTHING = "nothing"
"""What is said where `rfho.diagnose` has no finding."""


def usefulness(arrays: Mapping[str, np.ndarray], *, limit: float, span: float) -> Table:
    """How well hypergradients predict the slope of their neighbourhood, calm rates and chaotic ones."""
    known = np.isfinite(arrays["hypergradient"]) & np.isfinite(arrays["secant"])
    with np.errstate(invalid="ignore"):
        chaotic = known & (arrays["growth"] > limit)
    rows = []
    for name, mask in (("calm", known & ~chaotic), ("chaotic", chaotic)):
        exact, secant = arrays["hypergradient"][mask], arrays["secant"][mask]
        rows.append(
            [
                f"{name}: growth {'above' if name == 'chaotic' else 'up to'} {limit:g}",
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
        f"The slope around a rate is fitted to the losses within {span:g} decades. The "
        f"lowest loss, {arrays['value'][best]:.3g}, is at rate {arrays['rate'][best]:.3g}."
    )
    return make_table("Is the hypergradient of use?", columns, rows, note=note)


def diagnosis(arrays: Mapping[str, np.ndarray], findings: Mapping[int, str]) -> Table:
    """The rates at which `rfho.diagnose` finds the same, and of what use hypergradients are there."""
    rows = []
    for said in dict.fromkeys(findings.values()):
        at = np.array([index for index, words in findings.items() if words == said])
        exact, secant = arrays["hypergradient"][at], arrays["secant"][at]
        rates = arrays["rate"][at]
        same = float(np.mean(np.sign(exact) == np.sign(secant)))
        rows.append([said, len(at), float(rates.min()), float(rates.max()), same])
    columns = [
        Column("rfho.diagnose finds"),
        Column("how many", 0),
        Column("from"),
        Column("to"),
        Column("same sign as the slope around", 2),
    ]
    return make_table("What the diagnosis says of the same points", columns, rows)


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
    for axis in (top, middle, bottom):
        _share_rates(axis, arrays, limit)
    return drawn


def _draw_growth(
    axis: Axes,
    arrays: Mapping[str, np.ndarray],
    findings: Mapping[int, str],
    limit: float,
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


def _share_rates(axis: Axes, arrays: Mapping[str, np.ndarray], limit: float) -> None:
    rates = arrays["rate"]
    axis.set(xscale="log", xlim=(rates[0], rates[-1]))
    with np.errstate(invalid="ignore"):
        above_limit = np.flatnonzero(arrays["growth"] > limit)
    if len(above_limit):
        begin, end = float(rates[above_limit[0]]), float(rates[-1])
        axis.axvspan(begin, end, color=COLOURS[5], alpha=0.12, linewidth=0)


CAPTION = (
    "Above: the training loss after T steps against the learning rate. Middle: its derivative by the "
    "logarithm of the rate, exact at each rate, and the slope of the loss curve around it. Below: "
    "the growth of the adjoint on its way back, and what rfho.diagnose says of some of the rates. "
    "Shaded from the first rate at which growth exceeds the dotted line: the hypergradient is exact "
    "there, and no guide."
)
