"""Pictures of one style: readable at the size of a page, and without colour vision.

Figures are drawn by matplotlib's Agg canvas without pyplot, so nothing global is touched and no
window opens. Colours are those of Okabe and Ito, told apart by line style too.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Seven colours that people of every colour vision can tell apart (Okabe and Ito, 2008)."""

LINES = ("-", "--", "-.", ":")
"""Line styles, one after the other."""

_DPI = 150
_WRITTEN_CELLS = 12
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
}


def figure(
    rows: int = 1, columns: int = 1, *, width: int | float = 6.4, height: int | float = 4.0
) -> tuple[Figure, np.ndarray]:
    """A figure in the common style, and its axes as an array ``(rows, columns)``.

    Args:
        rows: of axes.
        columns: of axes.
        width: in inches.
        height: in inches.
    """
    with mpl.rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        return drawn, drawn.subplots(rows, columns, squeeze=False)


def to_png(drawn: Figure) -> bytes:
    """A figure as a PNG file: 960 pixels for the usual width, the same bytes every time."""
    stream = io.BytesIO()
    drawn.savefig(stream, dpi=_DPI, format="png", metadata={"Software": None}, facecolor="white")
    return stream.getvalue()


def curves(
    series: Mapping[str, np.ndarray],
    x: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    x_label: str,
    y_label: str,
    y_scale: str = "linear",
) -> Figure:
    """One line per name: the mean over runs, and a band of one standard deviation.

    Args:
        series: arrays ``(steps,)`` of one run or ``(runs, steps)`` of several; what is not finite
            is left out.
        x: the positions of the steps, of all lines or of each by its name; by default 0, 1, ….
        x_label: with its unit.
        y_label: with its unit.
        y_scale: a scale of matplotlib, such as ``log``.
    """
    drawn, axes = figure()
    axis: Axes = axes[0, 0]
    for number, (name, values) in enumerate(series.items()):
        mean, std = _mean_and_std(np.atleast_2d(np.asarray(values, dtype=np.float64)))
        places = np.arange(len(mean)) if x is None else x[name] if isinstance(x, Mapping) else x
        colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
        axis.plot(places, mean, line, color=colour, linewidth=1.8, label=name)
        if np.any(std > 0):
            low, high = mean - std, mean + std
            axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel=x_label, ylabel=y_label, yscale=y_scale)
    if len(series) > 1:
        axis.legend(frameon=False)
    return drawn


def heat_map(
    matrix: np.ndarray,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    label: str = "",
) -> Figure:
    """A matrix as colours with the names of its rows and columns.

    Numbers of both signs get a scale that is white at zero, others one that starts at zero;
    a matrix of at most 12 x 12 shows its numbers too.

    Args:
        matrix: ``(rows, columns)``.
        row_names: one per row.
        column_names: one per column.
        label: what the numbers are.

    Raises:
        ValueError: the names do not fit the matrix.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (len(row_names), len(column_names)):
        raise ValueError(
            f"a matrix of the shape {matrix.shape} for {len(row_names)} row names and "
            f"{len(column_names)} column names"
        )
    side = 1.8 + 0.45 * max(matrix.shape)
    drawn, axes = figure(width=side + 1.0, height=side)
    axis: Axes = axes[0, 0]
    largest = float(np.nanmax(np.abs(matrix), initial=0.0)) or 1.0
    signed = bool(np.nanmin(matrix, initial=0.0) < 0)
    colours, lowest = ("RdBu_r", -largest) if signed else ("viridis", 0.0)
    image = axis.imshow(matrix, cmap=colours, vmin=lowest, vmax=largest)
    axis.set_xticks(range(len(column_names)), column_names, rotation=45, ha="right")
    axis.set_yticks(range(len(row_names)), row_names)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    drawn.colorbar(image, ax=axis, label=label, shrink=0.8)
    if max(matrix.shape) <= _WRITTEN_CELLS:
        _write_cells(axis, matrix, lowest, largest)
    return drawn


def histograms(
    groups: Mapping[str, np.ndarray], *, x_label: str, y_label: str = "examples", bins: int = 40
) -> Figure:
    """The distributions of several groups of numbers over the same bins.

    Args:
        groups: numbers by the name of the group.
        x_label: what the numbers are.
        y_label: what is counted.
        bins: how many.
    """
    drawn, axes = figure()
    axis: Axes = axes[0, 0]
    arrays = {name: np.ravel(np.asarray(values)) for name, values in groups.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins)
    for number, (name, values) in enumerate(arrays.items()):
        counts, _ = np.histogram(values, edges)
        colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
        axis.stairs(counts, edges, fill=True, alpha=0.3, color=colour)
        axis.stairs(counts, edges, color=colour, linestyle=line, linewidth=1.5, label=name)
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.legend(frameon=False)
    return drawn


def image_grid(
    images: np.ndarray,
    captions: Sequence[str],
    *,
    columns: int = 10,
    limits: tuple[int | float, int | float] = (0.0, 1.0),
) -> Figure:
    """Images side by side, each with a caption.

    Args:
        images: ``(n, height, width)`` in grey, dark is large, or ``(n, height, width, 3)``.
        captions: one per image.
        columns: images in a row.
        limits: the values shown as white and black; others are clipped.

    Raises:
        ValueError: there are no images, or not one caption for each.
    """
    if not len(images) or len(images) != len(captions):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    drawn, axes = figure(rows, columns, width=max(2.0, 0.95 * columns), height=0.35 + 1.15 * rows)
    for axis in axes.flat:
        axis.set_axis_off()
    lowest, highest = limits
    scaled = np.clip((np.asarray(images, dtype=np.float64) - lowest) / (highest - lowest), 0, 1)
    for axis, image, caption in zip(axes.flat, scaled, captions, strict=False):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(caption, fontsize=8, pad=2)
    return drawn


def _mean_and_std(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the runs that are finite at a step; NaN where none is."""
    finite = np.isfinite(runs)
    count = np.where(finite.any(axis=0), finite.sum(axis=0), np.nan)
    mean = np.where(finite, runs, 0.0).sum(axis=0) / count
    deviation = np.where(finite, runs - mean, 0.0)
    return mean, np.sqrt((deviation**2).sum(axis=0) / count)


def _write_cells(axis: Axes, matrix: np.ndarray, lowest: float, highest: float) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        place = (value - lowest) / (highest - lowest)
        # Both ends of the diverging scale are dark, but only the lower end of the other one.
        dark = abs(place - 0.5) > 0.35 if lowest < 0 else place < 0.6
        colour = "white" if dark else "black"
        axis.text(column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)
