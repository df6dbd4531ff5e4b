"""Subsets, splits and label noise that a seed decides, and nothing else.

Every function returns positions (or new arrays) and leaves what it was given alone. Data hyper-
cleaning (arXiv 1703.01785, section 4) takes a balanced subset, splits it in three, and replaces
some labels by a different class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32


class FlippedLabels(NamedTuple):
    """Labels of which some are wrong.

    Attributes:
        labels: ``(n,)``, what a learner sees.
        mask: ``(n,)``, True where the label was replaced.
    """

    labels: Int32[np.ndarray, " n"]
    mask: Bool[np.ndarray, " n"]


def balanced_subset(
    labels: Int[np.ndarray, " n"], size: int, *, seed: int
) -> Int[np.ndarray, " size"]:
    """Random positions with equally many examples of each class, in random order.

    Where ``size`` is no multiple of the number of classes, the classes that get one example more
    are drawn too.

    Raises:
        ValueError: a class has too few examples, or ``size`` is not positive.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 1, 1])
        >>> np.bincount(labels[balanced_subset(labels, 4, seed=0)])
        array([2, 2])
    """
    if size < 1:
        raise ValueError(f"size = {size}, but a subset has at least one example")
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    wanted = np.full(len(classes), size // len(classes))
    wanted[generator.permutation(len(classes))[: size % len(classes)]] += 1
    chosen = [
        _drawn(np.flatnonzero(labels == label), int(count), generator, what=f"class {label}")
        for label, count in zip(classes, wanted, strict=True)
    ]
    return generator.permutation(np.concatenate(chosen))


def random_split(
    count: int, sizes: Sequence[int], *, seed: int
) -> tuple[Int[np.ndarray, " _"], ...]:
    """Disjoint random positions among 0..count-1, one array per size.

    Raises:
        ValueError: a size is negative, or they add up to more than ``count``.

    Example:
        >>> train, valid = random_split(10, (6, 3), seed=0)
        >>> len(train), len(valid), len(set(train) & set(valid))
        (6, 3, 0)
    """
    if min(sizes, default=0) < 0 or sum(sizes) > count:
        raise ValueError(f"sizes = {tuple(sizes)}, but there are {count} examples to share out")
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(sizes, dtype=np.int64)
    return tuple(order[end - size : end] for end, size in zip(ends, sizes, strict=True))


def flip_labels(
    labels: Int[np.ndarray, " n"], count: int, *, classes: int, seed: int
) -> FlippedLabels:
    """Replaces ``count`` labels, drawn at random, by a uniformly chosen different class.

    Args:
        labels: values in 0..classes-1.
        count: how many to replace.
        classes: the number of classes.
        seed: decides which labels are replaced, and by what.

    Raises:
        ValueError: ``count`` is not in 0..n, there are fewer than two classes, or a label is none
            of them.

    Example:
        >>> flipped = flip_labels(np.zeros(6, dtype=np.int32), 2, classes=10, seed=0)
        >>> int(flipped.mask.sum()), int((flipped.labels != 0).sum())
        (2, 2)
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"count = {count}, but there are {len(labels)} labels to replace")
    if classes < 2:
        raise ValueError(f"classes = {classes}, but a different class needs at least two")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, not 0..{classes - 1}")
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), size=count, replace=False)
    # A shift by 1..classes-1 modulo classes reaches every other class equally often.
    shifts = generator.integers(1, classes, size=count)
    flipped, mask = labels.astype(np.int32), np.zeros(len(labels), dtype=np.bool_)
    flipped[chosen] = (labels[chosen] + shifts) % classes
    mask[chosen] = True
    return FlippedLabels(flipped, mask)


def _drawn(
    positions: np.ndarray, count: int, generator: np.random.Generator, *, what: str
) -> np.ndarray:
    if count > len(positions):
        raise ValueError(f"{what} has {len(positions)} examples, but {count} are wanted")
    return generator.choice(positions, size=count, replace=False)
