"""What a run of data hyper-cleaning shows: how well suspects are found, tables and pictures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rfho.experiments.data_cleaning.data import CleaningData
from rfho.runs.pictures import curves, histograms, image_grid
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import Record, grouped, tabulated, traced
from rfho.runs.table import Table

_IMAGES = 40
"""Suspects in the picture."""

ACCURACIES = {
    "training set": None,
    "test %": 2,
    "weighted %": 2,
    "F1": 4,
    "precision": 3,
    "recall": 3,
    "suspects": 0,
}
_TIMES = {
    "run": None,
    "steps": None,
    "s per step": 2,
    "tuning s": 1,
    "final models s": 1,
    "others s": 1,
}


def detection(suspect: Bool[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> dict[str, float]:
    """How well suspects match the wrong labels; zero where there are no suspects.

    Example:
        >>> detection(np.array([True, True, False]), np.array([True, False, False]))
        {'F1': 0.6666666666666666, 'precision': 0.5, 'recall': 1.0}
    """
    hits, suspects, all_wrong = (int(np.sum(each)) for each in (suspect & wrong, suspect, wrong))
    return {
        "F1": 2 * hits / max(1, suspects + all_wrong),
        "precision": hits / max(1, suspects),
        "recall": hits / max(1, all_wrong),
    }


class Tuned(NamedTuple):
    """The weights of one split.

    Attributes:
        data: the split.
        radii: the budgets R.
        threshold: a smaller weight makes a suspect.
        weights: λ for each budget.
        hypergradients: of the last outer step, zero before the first.
        losses: the validation loss at the last outer step for each budget; none before the first.
        seconds: of each outer step, all budgets together.
    """

    data: CleaningData
    radii: Float[np.ndarray, " budgets"]
    threshold: float
    weights: Float[np.ndarray, "budgets n"]
    hypergradients: Float[np.ndarray, "budgets n"]
    losses: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def names(self) -> list[str]:
        """Of the budgets."""
        return [f"R = {radius:g}" for radius in self.radii]

    @property
    def suspects(self) -> Bool[np.ndarray, "budgets n"]:
        """For each budget."""
        return self.weights < self.threshold

    @property
    def detections(self) -> list[dict[str, float]]:
        """For each budget."""
        return [detection(suspects, self.data.wrong) for suspects in self.suspects]

    @property
    def best(self) -> int:
        """The budget of the lowest validation loss; the first before any outer step."""
        return int(np.argmin(self.losses)) if self.losses else 0

    @property
    def time(self) -> dict[str, Any]:
        """Of the outer steps."""
        seconds = self.seconds
        return {
            "run": f"noise {self.data.noise:g}, seed {self.data.seed}",
            "steps": len(seconds),
            "s per step": float(np.median(seconds)) if seconds else None,
            "tuning s": float(sum(seconds)),
        }

    def row(self) -> Record:
        """The line of the history for the last outer step."""
        row = {"noise": self.data.noise, "seed": self.data.seed}
        row |= {"step": len(self.seconds), "seconds": self.seconds[-1]}
        found = zip(self.radii, self.losses, self.detections, self.suspects, strict=True)
        for radius, loss, scores, suspects in found:
            seen = {"loss": loss, "F1": scores["F1"], "suspects": suspects.sum()}
            row |= {f"{name} R={radius:g}": score for name, score in seen.items()}
        return row


def add_tuned(folder: RunFolder, tuned: Tuned, *, first: bool) -> None:
    """Saves the weights, and draws what needs no final model: weights of the first seed only."""
    data = tuned.data
    arrays = {"weights": tuned.weights, "radii": tuned.radii}
    arrays |= {"given": data.train[1], "true": data.true, "wrong": data.wrong}
    caption = f"Weights at noise {data.noise:g}, seed {data.seed}:"
    folder.add_arrays(f"weights-{_tag(data.noise)}-seed-{data.seed}", arrays, caption)
    add_curves(folder, tuned)
    if first:
        _add_histogram(folder, tuned)


def tables(records: Sequence[Record], times: Sequence[Record], train: int) -> dict[str, Table]:
    """Accuracies at every noise level, and the time that all runs took."""
    found: dict[str, Table] = {}
    for noise, alike in grouped(records, "noise").items():
        count = len(grouped(alike, "seed"))
        seeds = f"{count} seeds: mean ± standard deviation" if count > 1 else "1 seed"
        note = (
            f"{round(noise * train)} of {train} labels are wrong; {times[0]['steps']} outer "
            f"steps; {seeds}. Test %: accuracy after training on the validation set and the clean training "
            "examples (oracle), all (baseline), none, or all but the suspects (R). Weighted %: after "
            "training on all with their weights, as in the program of the paper's authors. Suspects of the model "
            "trained on the validation set alone are the labels that it would not give; those of the noise matrix "
            "come of an expectation-maximisation across folds, without weights, and so do cleanlab's, if it is "
            "installed."
        )
        title = f"Test accuracy, {noise:.0%} wrong labels"
        table = tabulated(title, alike, ACCURACIES, by="training set", note=note)
        found[f"accuracy-{_tag(noise)}"] = table
    return found | {"time": tabulated("Time", times, _TIMES, note=_TIME)}


def add_curves(folder: RunFolder, tuned: Tuned, judged: Sequence[Record] = ()) -> None:
    """Over all seeds so far; level lines for who finds wrong labels without weights, if records know them."""
    rows = grouped(folder.history(), "noise").get(tuned.data.noise, [])
    steps = np.arange(1, max((row["step"] for row in rows), default=0) + 1)
    others = grouped(judged, "noise").get(tuned.data.noise, [])
    for key, label in (("loss", "validation loss"), ("F1", "F1 of the suspects")):
        if not rows:
            continue
        names = {f"R = {radius:g}": f"{key} R={radius:g}" for radius in tuned.radii}
        series = {name: traced(rows, column, over="seed") for name, column in names.items()}
        for name, records in grouped(others, "training set").items():
            level = [record[key] for record in records if key in record]
            if level and name not in series:
                series[name] = np.tile(np.array(level)[:, None], len(steps))
        drawn = curves(series, steps, x_label="outer step", y_label=label)
        caption = (
            f"{label[0].upper()}{label[1:]} by outer step, {tuned.data.noise:.0%} wrong labels."
        )
        folder.add_picture(f"{key.lower()}-{_tag(tuned.data.noise)}", drawn, caption)


def _add_histogram(folder: RunFolder, tuned: Tuned) -> None:
    best, wrong = tuned.best, tuned.data.wrong
    groups = {"right label": tuned.weights[best][~wrong], "wrong label": tuned.weights[best][wrong]}
    drawn = histograms(
        {name: weights for name, weights in groups.items() if weights.size},
        x_label=f"weight λ (R = {tuned.radii[best]:g})",
        y_label="training examples",
    )
    folder.add_picture(
        f"weights-{_tag(tuned.data.noise)}",
        drawn,
        f"The weights with {tuned.data.noise:.0%} wrong labels, at the R of the lowest validation "
        f"loss (seed {tuned.data.seed}).",
    )


def add_suspects(folder: RunFolder, tuned: Tuned, likely: Int[np.ndarray, "budgets n"]) -> None:
    """The examples that the budget holds at zero hardest: those of the largest hypergradient."""
    best, data = tuned.best, tuned.data
    suspects = np.flatnonzero(tuned.suspects[best])
    if not len(suspects):
        return
    order = np.argsort(-tuned.hypergradients[best][suspects], kind="stable")[:_IMAGES]
    shown = suspects[order]
    names, likely = data.class_names, likely[best]
    arrow = " → " if max(map(len, names)) <= 2 else "\n→ "
    drawn = image_grid(
        data.train[0][shown].reshape(len(shown), *data.image_shape),
        [f"{names[data.train[1][i]]}{arrow}{names[likely[i]]}" for i in shown],
    )
    right = float(np.mean(likely[suspects] == data.true[suspects]))
    folder.add_picture(
        f"suspects-{_tag(data.noise)}",
        drawn,
        f"The most suspect training images (R = {tuned.radii[best]:g}): given label → label that the "
        f"cleaned model finds likely. Of all {len(suspects)} suspects, {right:.1%} get their right "
        "label in this way.",
    )


def _tag(noise: float) -> str:
    return f"noise-{round(100 * noise)}"


_TIME = (
    "Median seconds of an outer step. All budgets are tuned side by side, and so are the final models. Others: who "
    "finds wrong labels without weights, all together."
)
