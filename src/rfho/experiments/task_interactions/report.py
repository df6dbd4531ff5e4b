"""What learned task interactions show: accuracies of all methods, graphs, and losses by outer step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rfho.runs.pictures import curves, heat_map
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Table, make_table, spread

STL, NMTL, HMTL, HMTL_S = "STL", "NMTL", "HMTL", "HMTL-S"


class Chosen(NamedTuple):
    """What a method chose on one split, and what came of it: test accuracy in percent."""

    hyper: dict[str, np.ndarray]
    accuracy: float


def results(found: Mapping[str, Sequence[Chosen]], data: str, *, note: str) -> Table:
    """Test accuracies over the splits, and by how much each method beats STL on the same split."""
    single = np.array([chosen.accuracy for chosen in found[STL]])
    rows: list[list[Cell]] = []
    for method, chosen in found.items():
        accuracies = np.array([each.accuracy for each in chosen])
        gain = accuracies - single[: len(accuracies)]
        rho = np.array([float(each.hyper["rho"]) for each in chosen])
        total = np.array([float(np.sum(each.hyper["C"])) for each in chosen])
        gained: Cell = None if method == STL else spread(gain)
        rows.append([f"{method}: {_MEANING[method]}", spread(accuracies), gained])
        rows[-1] += [float(np.median(rho)), float(np.median(total))]
    columns = [
        Column("method"),
        Column("test accuracy %", 2),
        Column("more than STL", 2),
        Column("ρ (median)"),
        Column("Σ C (median)"),
    ]
    return make_table(f"Learning task interactions: {data}", columns, rows, note=note)


def add_graph(
    folder: RunFolder, method: str, chosen: Sequence[Chosen], names: tuple[str, ...]
) -> None:
    """The graph: C, scaled to its largest entry on each split, and averaged over the splits."""
    graphs = np.stack([each.hyper["C"] for each in chosen])
    largest = np.maximum(graphs.max(axis=(1, 2), keepdims=True), 1e-12)
    name = method.lower()
    folder.add_arrays(f"{name}-graphs", {"C": graphs}, f"{method}, C on each split:")
    drawn = heat_map(np.mean(graphs / largest, axis=0), names, names, label="C, largest entry = 1")
    caption = (
        f"{method}: which classes share, C divided by its largest entry, mean over the splits."
    )
    folder.add_picture(f"{name}-graph", drawn, caption)


def add_losses(folder: RunFolder) -> None:
    """Validation losses by outer step, mean and standard deviation over the splits."""
    history = folder.history()
    series: dict[str, np.ndarray] = {}
    for method in (HMTL, HMTL_S):
        rows = [row for row in history if row["method"] == method]
        splits = sorted({row["split"] for row in rows})
        losses = [[r["validation loss"] for r in rows if r["split"] == split] for split in splits]
        whole = [loss for loss in losses if loss and len(loss) == len(losses[0])]
        if whole:
            series[method] = np.array(whole, dtype=np.float64)
    if series:
        drawn = curves(series, x_label="outer step", y_label="validation loss")
        folder.add_picture("losses", drawn, "Validation loss by outer step, over the splits.")


_MEANING = {
    STL: "C = 0, ρ of a grid",
    NMTL: "C_jk = a, a and ρ of a grid",
    HMTL: "C and ρ learned",
    HMTL_S: "likewise, Σ C <= R",
}
