"""Data sets of Hugging Face, on disk."""

import functools
from typing import Any

import numpy as np

from rfho.adapters.ahead import Ahead
from rfho.problem import HostStream
from rfho.typing import Batch


def stream(dataset: Any, size: int, key: int, *, ahead: int = 2) -> HostStream:
    """A `datasets.Dataset` as minibatches without replacement, read from disk as they are needed.

    Each epoch visits every row at most once, in a new order, as `rfho.Stream` does. A batch is a dictionary of
    arrays, a column each.

    Args:
        dataset: as ``datasets.load_from_disk`` gives it; its columns are numbers, of one shape for
            each: texts as padded tokens.
        size: rows per batch.
        key: an integer, which says in which orders.
        ahead: how many batches are loaded before they are asked for.

    Raises:
        TypeError: it cannot be read by index, or a column is not of numbers.
        ValueError: it has fewer rows than a batch.

    Example:
        >>> from rfho.adapters.huggingface import stream
        >>> import datasets  # doctest: +SKIP
        >>> train = stream(datasets.load_from_disk("tokens"), size=32, key=0)  # doctest: +SKIP
    """
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"huggingface.stream got a {type(dataset).__name__}, but it must be a datasets.Dataset, which is read "
            "by index: download it and call datasets.load_from_disk"
        )
    rows = dataset.with_format("numpy")
    if not 1 <= size <= len(rows):
        raise ValueError(
            f"huggingface.stream got size={size}, but a batch must have between 1 and the {len(rows)} rows"
        )
    for name, column in rows[: min(size, 2)].items():
        if np.asarray(column).dtype.kind not in "biufc":
            raise TypeError(
                f'column "{name}" holds {type(column[0]).__name__} of several lengths or words, but batches are '
                f'arrays of numbers: tokenise and pad it, or call dataset.remove_columns("{name}")'
            )
    per_epoch = len(rows) // size

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((key, epoch)).permutation(len(rows))

    def load(t: int) -> Batch:
        epoch, place = divmod(t, per_epoch)
        return rows[order(epoch)[place * size : (place + 1) * size]]

    return HostStream(Ahead(load, ahead))
