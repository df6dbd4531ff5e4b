"""Data pipelines of Grain."""

from typing import Any

from rfho.adapters.ahead import Ahead
from rfho.problem import HostStream
from rfho.typing import Batch


def stream(dataset: Any, *, ahead: int = 2) -> HostStream:
    """A batched `grain.MapDataset` as the batches of a problem: element t is batch t, there and on the way back.

    Past its last batch a dataset that shuffles goes on in another order. For several epochs of batches across
    their borders write ``.repeat()`` before ``.batch(…)``.

    Args:
        dataset: ends in ``.batch(size, drop_remainder=True)``; its source may be an
            `grain.sources.ArrayRecordDataSource` on disk or anything else that is read by index.
        ahead: how many batches are loaded before they are asked for.

    Raises:
        TypeError: it cannot be read by index, as the way back has to.

    Example:
        >>> import numpy as np
        >>> from rfho.adapters.grain import stream
        >>> class Squares:
        ...     def __len__(self):
        ...         return 3
        ...
        ...     def __getitem__(self, t):
        ...         return np.full(2, (t % 3) ** 2, np.float32)
        >>> stream(Squares())(2).tolist()
        [4.0, 4.0]
    """
    if not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"grain.stream got a {type(dataset).__name__}, which gives a batch once, but the way back asks again: "
            "give the grain.MapDataset that it is made of, before .to_iter_dataset()"
        )

    def load(t: int) -> Batch:
        batch = dataset[t]
        if batch is None:
            raise ValueError(
                f"batch {t} of the dataset is empty, as a filter left out what it was: filter the source instead"
            )
        return batch

    return HostStream(Ahead(load, ahead))
