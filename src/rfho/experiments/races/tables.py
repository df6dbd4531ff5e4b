"""Tables of races: signal beside noise in as many groups as one likes, and real tables with groups of their own."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rfho.datasets import load_digits, load_newsgroups, load_spoken_digits, random_split, tf_idf
from rfho.datasets.files import locate
from rfho.experiments.races.models import CLASSES, NUMBERS, Model
from rfho.files import Array, read_arrays
from rfho.runs.settings import SettingsError, one_of


class Part(NamedTuple):
    """Examples."""

    x: np.ndarray
    y: np.ndarray


class RaceTable(NamedTuple):
    """Three parts, the group of each column, and what is fitted."""

    train: Part
    valid: Part
    test: Part
    group: np.ndarray
    model: Model = CLASSES

    @property
    def groups(self) -> int:
        """m, how many penalties there are."""
        return int(self.group.max()) + 1

    @property
    def outputs(self) -> int:
        """Columns of W: one for numbers and for two classes."""
        if self.model is NUMBERS:
            return 1
        classes = len(np.unique(self.train.y))
        return 1 if classes == 2 else classes

    @property
    def both(self) -> Part:
        """Training and validation set together."""
        return Part(*(np.concatenate(parts) for parts in zip(self.train, self.valid, strict=True)))


class Raw(NamedTuple):
    """A table as it is read; with groups of its own, or None where columns fall into as many as one likes."""

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray | None = None
    sizes: tuple[int, int] | None = None
    model: Model = CLASSES


def race_table(task: str, sizes: tuple[int, int], *, groups: int, seed: int) -> RaceTable:
    """The table of one race; a class that the training set lacks is left out everywhere.

    Args:
        task: digits, whose columns are pixels and pixels of other, random images; speech, the bands of
            spoken digits in four quarters, and as many columns of normal noise; or one with groups of its own:
            cancer, adult, cover, elevation, news.
        sizes: training and validation examples of the first two; of the test set at most 5000 are left.
        groups: m; neighbouring columns of the first two are in one group.
        seed: of the split, and of the noise.

    Raises:
        SettingsError: the table has fewer columns than groups, or too few examples.
        DataNotFoundError: the table's files are nowhere.
    """
    rng = np.random.default_rng(seed)
    x, y, group, own_sizes, model = _TABLES[task](rng)
    if group is None:
        if groups > x.shape[1]:
            raise SettingsError(
                f"{groups} groups, but {task} has {x.shape[1]} columns: lower groups"
            )
        group = np.arange(x.shape[1]) * groups // x.shape[1]
    try:
        train, valid = random_split(len(y), own_sizes or sizes, seed=seed)
    except ValueError as error:
        raise SettingsError(f"{error}: lower train or valid") from error
    x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-3)
    rest = np.setdiff1d(np.arange(len(y)), np.concatenate([train, valid]))
    answered = _answers(y, model, (train, valid, rng.permutation(rest)[:5000]))
    train_part, valid_part, test_part = (
        Part(x[rows].astype(np.float32), answers) for rows, answers in answered
    )
    return RaceTable(train_part, valid_part, test_part, group, model)


def _answers(
    y: np.ndarray, model: Model, parts: tuple[np.ndarray, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and answers of each part; the first is trained on: its deviation is 1, or its classes are all."""
    first = y[parts[0]]
    if model is NUMBERS:
        for rows in parts:
            yield rows, ((y[rows] - first.mean()) / first.std()).astype(np.float32)
        return
    known = np.unique(first)
    for rows in parts:
        kept = rows[np.isin(y[rows], known)]
        yield kept, np.searchsorted(known, y[kept])


def has_own_groups(task: str) -> bool:
    """Whether m is the table's affair."""
    return task not in ("digits", "speech")


def _digits(rng: np.random.Generator) -> Raw:
    digits = load_digits()
    ink = digits.images.reshape(len(digits.labels), -1)
    noise = [rng.permutation(column)[:, None] for column in ink.T]
    return Raw(np.concatenate([ink, *noise], axis=1), np.asarray(digits.labels))


def _speech(rng: np.random.Generator) -> Raw:
    speech = load_spoken_digits()
    ends = zip(speech.offsets[:-1], speech.offsets[1:], strict=True)
    quarters = [
        np.stack([part.mean(axis=0) for part in np.array_split(speech.frames[a:b], 4)])
        for a, b in ends
    ]
    bands = np.stack(quarters).transpose(0, 2, 1).reshape(len(quarters), -1)
    return Raw(np.concatenate([bands, rng.normal(size=bands.shape)], axis=1), speech.digit)


def _cancer(rng: np.random.Generator) -> Raw:
    """Breast cancer: thirty measurements of cells, a group each."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return Raw(x, y, np.arange(x.shape[1]), (150, 150))


def _adult(rng: np.random.Generator) -> Raw:
    """123 bits of census answers, nine neighbours to a group."""
    path = locate("adult_a9a_bits.npz", home=None)
    bits, y = read_arrays(
        path, Array("x_train", (np.uint8,), ("n", 16)), Array("y_train", (np.integer,), ("n",))
    )
    x = np.unpackbits(bits, axis=1)[:, :123].astype(float)
    return Raw(x, (y > 0).astype(int), np.arange(x.shape[1]) // 9, (300, 600))


def _cover(rng: np.random.Generator) -> Raw:
    """Cover types of forest: ten measurements, four areas, forty soils, a group for each column."""
    x, y = _forest()
    return Raw(x, y, np.arange(x.shape[1]), (300, 600))


def _elevation(rng: np.random.Generator) -> Raw:
    """The elevation of forest, from the other columns of the same table: banded ridge."""
    x, _ = _forest()
    group = np.arange(x.shape[1] - 1)
    return Raw(x[:, 1:], x[:, 0], group, (300, 600), NUMBERS)


def _forest() -> tuple[np.ndarray, np.ndarray]:
    path = locate("covtype_92k.npz", home=None)
    numbers, area, soil, y = read_arrays(
        path,
        Array("continuous_e6", (np.integer,), ("n", 10)),
        Array("wilderness", (np.integer,), ("n",), lowest=0, below=4),
        Array("soil", (np.integer,), ("n",), lowest=0, below=49),
        Array("y", (np.integer,), ("n",)),
    )
    x = np.concatenate([numbers / 1e6, np.eye(4)[area], np.eye(40)[soil]], axis=1)
    return x, y.astype(int)


def _news(rng: np.random.Generator) -> Raw:
    """The five newsgroups on computers: the thousand words that most of their messages have, a group each."""
    news = load_newsgroups()
    ours = [number for number, name in enumerate(news.group_names) if name.startswith("comp.")]
    rows = np.flatnonzero(np.isin(news.train_labels, ours))
    weighted = tf_idf(news.train_counts, news.test_counts).train[rows]
    frequent = np.argsort(-np.bincount(weighted.indices, minlength=weighted.shape[1]))[:1000]
    x = weighted[:, frequent].toarray()
    return Raw(x, news.train_labels[rows], np.arange(1000), (800, 800))


_TABLES: dict[str, Callable[[np.random.Generator], Raw]] = {
    "digits": _digits,
    "speech": _speech,
    "cancer": _cancer,
    "adult": _adult,
    "cover": _cover,
    "elevation": _elevation,
    "news": _news,
}

TASKS = one_of(*_TABLES)
"""The check of a setting that names the table."""
