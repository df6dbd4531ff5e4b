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

_DPI, _BINS, _WRITTEN_CELLS = 150, 40, 12
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


def style(number: int) -> dict[str, Any]:
    """Colour and line style of the ``number``-th of several lines, as ``Axes.plot`` takes them."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}


def draw_lines(
    axis: Axes,
    series: Mapping[str, np.ndarray],
    x: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    held: bool = False,
) -> None:
    """One line per name upon axes, as `curves` draws them."""
    for number, (name, values) in enumerate(series.items()):
        runs = np.ma.masked_invalid(np.atleast_2d(np.asarray(values, dtype=np.float64)))
        mean, std = runs.mean(axis=0).filled(np.nan), runs.std(axis=0).filled(np.nan)
        places = np.arange(len(mean)) if x is None else x[name] if isinstance(x, Mapping) else x
        way = "steps-post" if held else "default"
        (line,) = axis.plot(places, mean, drawstyle=way, linewidth=1.8, label=name, **style(number))
        if np.any(std > 0):
            low, high = mean - std, mean + std
            axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def legend_above(drawn: Figure, axis: Axes, columns: int) -> None:
    """The names of what is drawn upon one of the axes, above all of them."""
    handles, labels = axis.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


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
    held: bool = False,
) -> Figure:
    """One line per name: the mean over runs, and a band of one standard deviation.

    Args:
        series: arrays ``(steps,)`` of one run or ``(runs, steps)`` of several; what is not finite
            is left out.
        x: the positions of the steps, of all lines or of each by its name; by default 0, 1, ….
        x_label: with its unit.
        y_label: with its unit.
        y_scale: a scale of matplotlib, such as ``log``.
        held: whether a number holds until the next one, so that lines are stairs.
    """
    drawn, axes = figure()
    axis: Axes = axes[0, 0]
    draw_lines(axis, series, x, held=held)
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

    A matrix of at most 12 x 12 shows its numbers too.

    Args:
        matrix: ``(rows, columns)``, nowhere below zero.
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
    largest = float(np.nanmax(matrix, initial=0.0)) or 1.0
    image = axis.imshow(matrix, cmap="viridis", vmin=0, vmax=largest)
    axis.set_xticks(range(len(column_names)), column_names, rotation=45, ha="right")
    axis.set_yticks(range(len(row_names)), row_names)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    drawn.colorbar(image, ax=axis, label=label, shrink=0.8)
    if max(matrix.shape) <= _WRITTEN_CELLS:
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if value < 0.6 * largest else "black"
            axis.text(
                column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7
            )
    return drawn


def histograms(groups: Mapping[str, np.ndarray], *, x_label: str, y_label: str) -> Figure:
    """The distributions of several groups of numbers over the same bins.

    Args:
        groups: numbers by the name of the group.
        x_label: what the numbers are.
        y_label: what is counted.
    """
    drawn, axes = figure()
    axis: Axes = axes[0, 0]
    arrays = {name: np.ravel(np.asarray(values)) for name, values in groups.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), _BINS)
    for number, (name, values) in enumerate(arrays.items()):
        counts, _ = np.histogram(values, edges)
        axis.stairs(counts, edges, fill=True, alpha=0.3, color=COLOURS[number % len(COLOURS)])
        axis.stairs(counts, edges, linewidth=1.5, label=name, **style(number))
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
