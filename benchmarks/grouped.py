"""``python -m benchmarks.grouped``: `GroupedClassifier` with its defaults beside `LogisticRegressionCV`.

The same examples for both, no parameter touched; log loss on examples that neither has seen, the mean over seeds and
of how many the first is ahead. Seeds begin at 10: the defaults were chosen while seeds 0 and 1 were looked at. The
tables of scikit-learn need nothing; those of the folder that ``RFHO_DATA`` names come if they are there.
Words choose among the tables by their names: ``python -m benchmarks.grouped wine adult``.
``--large`` fits one table of 50,000 x 1,000 and then another: their seconds, what the second one compiles, the most
memory, and the same for `LogisticRegressionCV` on the second. `docs/explanation/where-it-wins.md` quotes what both
print.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import log_loss

from benchmarks.compilations import compilations
from rfho.adapters.sklearn import GroupedClassifier
from rfho.experiments.races.tables import race_table

SEEDS = range(10, 18)


class Case(NamedTuple):
    """One split of one table; the group of each column."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    group: np.ndarray


def split(x: np.ndarray, y: np.ndarray, group: np.ndarray, *, train: int, seed: int) -> Case:
    """``train`` examples, and at most 5000 others; columns scaled by the former."""
    order = np.random.default_rng(seed).permutation(len(y))
    first, rest = order[:train], order[train : train + 5000]
    size = x[first].std(axis=0)
    scaled = (x - x[first].mean(axis=0)) / np.where(size > 0, size, 1)
    known = np.isin(y[rest], np.unique(y[first]))
    return Case(scaled[first], y[first], scaled[rest][known], y[rest][known], group)


def race(task: str, seed: int, *, noise: bool) -> Case:
    """The digits or spoken digits of the races, beside as much noise or alone."""
    table = race_table(task, (200, 400), groups=128 if task == "digits" else 80, seed=seed)
    x = np.concatenate([table.train.x, table.valid.x])
    columns = x.shape[1] if noise else x.shape[1] // 2
    y = np.concatenate([table.train.y, table.valid.y])
    return Case(x[:, :columns], y, table.test.x[:, :columns], table.test.y, table.group[:columns])


def of_scikit_learn(
    load: Callable[..., tuple[np.ndarray, np.ndarray]], groups: int, seed: int
) -> Case:
    """A table that comes with scikit-learn, whose column j is of group j mod ``groups``."""
    x, y = load(return_X_y=True)
    group = np.arange(x.shape[1]) % groups
    return split(x, y, group, train=len(y) // 2, seed=seed)


def adult(folder: Path, seed: int) -> Case:
    """123 bits in 14 groups."""
    with np.load(folder / "adult_a9a_bits.npz") as file:
        x = np.unpackbits(file["x_train"], axis=1)[:, : int(file["n_features"])].astype(float)
        y = (file["y_train"] > 0).astype(int)
    return split(x, y, np.arange(x.shape[1]) // 9, train=900, seed=seed)


def cover(folder: Path, seed: int) -> Case:
    """Ten measurements, four areas, forty soils: a group for each column."""
    with np.load(folder / "covtype_92k.npz") as file:
        codes = np.eye(4)[file["wilderness"]], np.eye(40)[file["soil"]]
        x = np.concatenate([file["continuous_e6"] / 1e6, *codes], axis=1)
        y = file["y"].astype(int)
    return split(x, y, np.arange(x.shape[1]), train=900, seed=seed)


def news(seed: int) -> Case:
    """Five newsgroups on computers: their thousand commonest words in forty groups, from common to rare."""
    table = race_table("news", (800, 800), groups=1000, seed=seed)
    x, y = table.both
    group = np.arange(x.shape[1]) * 40 // x.shape[1]
    return Case(x, y, table.test.x, table.test.y, group)


def tables() -> Iterator[tuple[str, Callable[[int], Case]]]:
    """Those that there are."""
    yield "digits beside as much noise", lambda seed: race("digits", seed, noise=True)
    yield "digits", lambda seed: race("digits", seed, noise=False)
    yield "breast cancer", lambda seed: of_scikit_learn(load_breast_cancer, 10, seed)
    yield "wine", lambda seed: of_scikit_learn(load_wine, 13, seed)
    if "RFHO_DATA" in os.environ:
        folder = Path(os.environ["RFHO_DATA"])
        yield "spoken digits beside as much noise", lambda seed: race("speech", seed, noise=True)
        yield "spoken digits", lambda seed: race("speech", seed, noise=False)
        yield "adult", lambda seed: adult(folder, seed)
        yield "forest cover types", lambda seed: cover(folder, seed)
        yield "five newsgroups", news


def fitted(case: Case, model: GroupedClassifier | LogisticRegressionCV) -> tuple[float, float]:
    """The test loss, and CPU seconds."""
    begin = time.process_time()
    if isinstance(model, GroupedClassifier):
        model.fit(case.x, case.y, groups=case.group)
    else:
        model.fit(case.x, case.y)
    seconds = time.process_time() - begin
    probabilities = model.predict_proba(case.x_test)
    return float(log_loss(case.y_test, probabilities, labels=model.classes_)), seconds


def wide(seed: int, *, rows: int = 50_000, columns: int = 1_000, groups: int = 50) -> Case:
    """Two classes told by a fifth of the groups, each by as much as it happens; the other groups are noise."""
    rng = np.random.default_rng(seed)
    group = np.arange(columns) * groups // columns
    strength = np.where(rng.random(groups) < 0.2, rng.exponential(size=groups), 0.0)
    truth = rng.normal(size=columns) * strength[group] * np.sqrt(groups / columns)
    x = rng.normal(size=(rows + 5000, columns)).astype(np.float32)
    y = (x @ truth + rng.logistic(size=len(x)) > 0).astype(int)
    return Case(x[:rows], y[:rows], x[rows:], y[rows:], group)


def large() -> None:
    """Prints a line for each of two fits of one shape, and one for the other tool on the second."""
    for seed in (0, 1):
        case = wide(seed)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        model = GroupedClassifier()
        with compilations() as compiled:
            loss, seconds = fitted(case, model)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{' x '.join(map(str, case.x.shape))}, {len(model.groups_)} groups: {seconds:.0f} CPU s, "
            f"{len(compiled)} programs compiled, {model.n_iter_} outer steps, {len(model.silenced_)} groups "
            f"silenced, test log loss {loss:.4f}; at most {most:.0f} MB, {before:.0f} MB of them before",
            flush=True,
        )
    loss, seconds = fitted(case, other())
    print(f"LogisticRegressionCV: {seconds:.0f} CPU s, test log loss {loss:.4f}", flush=True)


def other() -> LogisticRegressionCV:
    """Ten penalties, by log loss on five folds."""
    return LogisticRegressionCV(Cs=10, max_iter=500, scoring="neg_log_loss")


def main(words: list[str]) -> None:
    """Prints a row for each table whose name has one of the words; of none, for all."""
    warnings.simplefilter("ignore")
    print(
        "| table | examples x columns | groups | GroupedClassifier | LogisticRegressionCV | ahead | seconds |"
    )
    print("|:---|---:|---:|---:|---:|---:|---:|")
    for name, of in tables():
        if words and not any(word in name for word in words):
            continue
        ours, theirs = [], []
        for seed in SEEDS:
            case = of(seed)
            ours.append(fitted(case, GroupedClassifier()))
            theirs.append(fitted(case, other()))
        a, b = np.array(ours), np.array(theirs)
        size = " x ".join(map(str, case.x.shape))
        ahead = f"{int((a[:, 0] < b[:, 0]).sum())} of {len(a)}"
        losses = f"{a[:, 0].mean():.3f} | {b[:, 0].mean():.3f}"
        seconds = f"{np.median(a[:, 1]):.1f} and {np.median(b[:, 1]):.1f}"
        print(
            f"| {name} | {size} | {len(set(case.group))} | {losses} | {ahead} | {seconds} |",
            flush=True,
        )


if __name__ == "__main__":
    large() if "--large" in sys.argv else main(sys.argv[1:])
