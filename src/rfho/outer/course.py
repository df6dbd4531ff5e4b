"""The way of every hyperparameter through a run: as a table of text, and as a picture."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rfho.errors import needed
from rfho.outer.lines import shown

_ROWS = 20
_DRAWN = 2000
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def table(history: Sequence[Any]) -> str:
    """A line for each outer step, or for twenty of them: f at λ_{k-1}, and λ_k; of arrays the range.

    Args:
        history: reports, in order.
    """
    if not history:
        return "no outer steps"
    chosen = sorted({round(i) for i in np.linspace(0, len(history) - 1, _ROWS)})
    names = [name for name, _ in history[0].learned()]
    rows = [["step", "objective", *names]]
    for i in chosen:
        report = history[i]
        cells = [shown(leaf) for _, leaf in report.learned()]
        rows.append([str(report.step), shown(report.value), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def plot(history: Sequence[Any]) -> Any:
    """A `matplotlib.figure.Figure`: the objective, and each hyperparameter; of arrays five quantiles.

    Args:
        history: reports, in order.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the run has no outer step.
    """
    if not history:
        raise ValueError("the run has no outer step to draw")
    history = history[:: -(-len(history) // _DRAWN)]
    figures = needed("matplotlib.figure", by="Solution.plot", extra="cli")
    steps = [report.step for report in history]
    values = np.array([np.asarray(jax.tree.leaves(report.value), float) for report in history])
    panels = [("objective", values)]
    courses = zip(*(report.learned() for report in history), strict=True)
    for (name, leaf), *later in courses:
        course = np.array([leaf, *(leaf for _, leaf in later)])
        flat = course.reshape(len(history), -1).astype(float)
        many = leaf.size > len(_QUANTILES)
        panels.append((name, np.quantile(flat, _QUANTILES, axis=1).T if many else flat))
    drawn = figures.Figure(figsize=(6.4, 2.2 * len(panels)), layout="constrained")
    axes = drawn.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, lines) in zip(axes, panels, strict=True):
        axis.plot(steps, lines)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        if lines.min() > 0 and lines.max() > 10 * lines.min():
            axis.set_yscale("log")
    axes[-1].set_xlabel("outer step")
    return drawn
