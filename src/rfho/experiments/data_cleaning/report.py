"""What a run of data hyper-cleaning shows: how well suspects are found, tables and pictures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rfho.experiments.data_cleaning.data import CleaningData
from rfho.runs.pictures import curves, histograms, image_grid
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Cell, Column, Table, make_table, spread

_IMAGES = 40
"""Suspects in the picture."""


class Tuned(NamedTuple):
    """The weights of one split, and how they came about.

    Attributes:
        data: the split.
        radii: the budgets R.
        threshold: a smaller weight makes a suspect.
        weights: λ for each budget.
        hypergradients: of the last outer step, zero before the first.
        losses: the validation loss at each outer step, for each budget.
        f1: likewise.
        seconds: of each outer step, all budgets together.
    """

    data: CleaningData
    radii: Float[np.ndarray, " budgets"]
    threshold: float
    weights: Float[np.ndarray, "budgets n"]
    hypergradients: Float[np.ndarray, "budgets n"]
    losses: list[list[float]]
    f1: list[list[float]]
    seconds: list[float]


class FinalModels(NamedTuple):
    """Test accuracies in percent.

    Attributes:
        oracle: clean training examples and validation set.
        baseline: all training examples and validation set.
        valid_only: validation set.
        cleaned: without the suspects and with the validation set, for each budget.
        as_released: weighted as in the authors' program, for each budget.
        likely: the labels that the cleaned models give to the training images.
        seconds: of their training, all together.
    """

    oracle: float
    baseline: float
    valid_only: float
    cleaned: list[float]
    as_released: list[float]
    likely: Int[np.ndarray, "budgets n"]
    seconds: float


class Detection(NamedTuple):
    """How well suspects match the wrong labels; zero where there are no suspects."""

    precision: float
    recall: float
    f1: float


def detection(suspect: Bool[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> Detection:
    """Precision, recall and their harmonic mean.

    Example:
        >>> detection(np.array([True, True, False]), np.array([True, False, False]))
        Detection(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    hits = int(np.sum(suspect & wrong))
    precision = hits / max(1, int(suspect.sum()))
    recall = hits / max(1, int(wrong.sum()))
    return Detection(precision, recall, 2 * hits / max(1, int(suspect.sum() + wrong.sum())))


def add_tuned(folder: RunFolder, runs: Sequence[Tuned]) -> None:
    """Saves the last run's weights, and draws what needs no final model."""
    data = runs[-1].data
    folder.add_arrays(
        f"weights-{_tag(data)}-seed-{data.seed}",
        {
            "weights": runs[-1].weights,
            "radii": runs[-1].radii,
            "given": data.given,
            "true": data.true,
            "wrong": data.wrong,
        },
        f"Weights at noise {data.noise:g}, seed {data.seed}:",
    )
    alike = [run for run in runs if run.data.noise == data.noise]
    if alike[0].losses:
        _add_curves(folder, alike)
    if alike == [runs[-1]]:
        _add_histogram(folder, runs[-1])


def add_results(folder: RunFolder, runs: Sequence[tuple[Tuned, FinalModels]]) -> list[Table]:
    """Adds the tables of all runs so far and the picture of suspects, and returns the tables."""
    tables: list[Table] = []
    for noise in dict.fromkeys(tuned.data.noise for tuned, _ in runs):
        alike = [(tuned, final) for tuned, final in runs if tuned.data.noise == noise]
        tables.append(_accuracy_table(alike))
        folder.add_table(f"accuracy-{_tag(alike[0][0].data)}", tables[-1])
        _add_suspects(folder, *alike[0])
    tables.append(_time_table(runs))
    folder.add_table("time", tables[-1])
    return tables


def best_budget(tuned: Tuned) -> int:
    """The budget of the lowest validation loss; the first before any outer step."""
    return int(np.argmin(tuned.losses[-1])) if tuned.losses else 0


def _accuracy_table(runs: Sequence[tuple[Tuned, FinalModels]]) -> Table:
    data = runs[0][0].data
    columns = [
        Column("training set"),
        Column("test %", 2),
        Column("weighted %", 2),
        Column("F1", 4),
        Column("precision", 3),
        Column("recall", 3),
        Column("suspects", 0),
    ]
    nothing: list[Cell] = [None] * 5
    rows: list[list[Cell]] = [
        ["oracle", spread([f.oracle for _, f in runs]), *nothing],
        ["baseline", spread([f.baseline for _, f in runs]), *nothing],
        ["validation", spread([f.valid_only for _, f in runs]), *nothing],
    ]
    for budget, radius in enumerate(runs[0][0].radii):
        suspects = [tuned.weights[budget] < tuned.threshold for tuned, _ in runs]
        found = [
            detection(mask, tuned.data.wrong)
            for mask, (tuned, _) in zip(suspects, runs, strict=True)
        ]
        row = [
            [final.cleaned[budget] for _, final in runs],
            [final.as_released[budget] for _, final in runs],
            [each.f1 for each in found],
            [each.precision for each in found],
            [each.recall for each in found],
            [float(mask.sum()) for mask in suspects],
        ]
        rows.append([f"R = {radius:g}", *(spread(values) for values in row)])
    seeds = f"{len(runs)} seeds: mean ± standard deviation" if len(runs) > 1 else "1 seed"
    note = (
        f"{int(data.wrong.sum())} of {len(data.wrong)} labels are wrong; {len(runs[0][0].losses)} outer "
        f"steps; {seeds}. Test %: accuracy after training on the validation set and the clean training "
        "examples (oracle), all (baseline), none, or all but the suspects (R). Weighted %: after "
        "training on all with their weights, as in the program of the paper's authors."
    )
    return make_table(f"Test accuracy, {data.noise:.0%} wrong labels", columns, rows, note=note)


def _time_table(runs: Sequence[tuple[Tuned, FinalModels]]) -> Table:
    rows = [
        [
            f"noise {tuned.data.noise:g}, seed {tuned.data.seed}",
            len(tuned.seconds),
            float(np.median(tuned.seconds)) if tuned.seconds else None,
            sum(tuned.seconds),
            final.seconds,
        ]
        for tuned, final in runs
    ]
    columns = [
        Column("run"),
        Column("steps"),
        Column("s per step", 2),
        Column("tuning s", 1),
        Column("final models s", 1),
    ]
    note = (
        f"Median seconds of an outer step. The {len(runs[0][0].radii)} budgets are tuned side by side, and "
        "so are the final models."
    )
    return make_table("Time", columns, rows, note=note)


def _add_curves(folder: RunFolder, runs: Sequence[Tuned]) -> None:
    data = runs[0].data
    for name, label, picked in (
        ("loss", "validation loss", [run.losses for run in runs]),
        ("f1", "F1 of the suspects", [run.f1 for run in runs]),
    ):
        steps = max(len(values) for values in picked)
        padded = np.full((len(runs), steps, len(runs[0].radii)), np.nan)
        for number, values in enumerate(picked):
            padded[number, : len(values)] = values
        series = {f"R = {r:g}": padded[:, :, budget] for budget, r in enumerate(runs[0].radii)}
        drawn = curves(series, np.arange(1, steps + 1), x_label="outer step", y_label=label)
        caption = f"{label[0].upper()}{label[1:]} by outer step, {data.noise:.0%} wrong labels."
        folder.add_picture(f"{name}-{_tag(data)}", drawn, caption)


def _add_histogram(folder: RunFolder, tuned: Tuned) -> None:
    best, wrong = best_budget(tuned), tuned.data.wrong
    groups = {"right label": tuned.weights[best][~wrong], "wrong label": tuned.weights[best][wrong]}
    drawn = histograms(
        {name: weights for name, weights in groups.items() if weights.size},
        x_label=f"weight λ (R = {tuned.radii[best]:g})",
        y_label="training examples",
    )
    folder.add_picture(
        f"weights-{_tag(tuned.data)}",
        drawn,
        f"The weights with {tuned.data.noise:.0%} wrong labels, at the R of the lowest validation "
        f"loss (seed {tuned.data.seed}).",
    )


def _add_suspects(folder: RunFolder, tuned: Tuned, final: FinalModels) -> None:
    """The examples that the budget holds at zero hardest: those of the largest hypergradient."""
    best, data = best_budget(tuned), tuned.data
    suspects = np.flatnonzero(tuned.weights[best] < tuned.threshold)
    if not len(suspects):
        return
    order = np.argsort(-tuned.hypergradients[best][suspects], kind="stable")[:_IMAGES]
    shown = suspects[order]
    names, likely = data.class_names, final.likely[best]
    arrow = " → " if max(map(len, names)) <= 2 else "\n→ "
    drawn = image_grid(
        data.train[shown].reshape(len(shown), *data.image_shape),
        [f"{names[data.given[i]]}{arrow}{names[likely[i]]}" for i in shown],
    )
    right = float(np.mean(likely[suspects] == data.true[suspects]))
    folder.add_picture(
        f"suspects-{_tag(data)}",
        drawn,
        f"The most suspect training images (R = {tuned.radii[best]:g}): given label → label that the "
        f"cleaned model finds likely. Of all {len(suspects)} suspects, {right:.1%} get their right "
        "label in this way.",
    )


def _tag(data: CleaningData) -> str:
    return f"noise-{round(100 * data.noise)}"
