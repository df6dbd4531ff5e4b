"""Batches that are loaded while the device is busy with the ones before."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from rfho.typing import Batch


class Ahead:
    """``load``, with the next batches loaded in a thread while the last one is computed with.

    The way there asks for t, t + 1, … and the way back for t, t - 1, …; what comes next is seen from the last
    two. ``load`` is never called twice at the same time.

    Args:
        load: ``t -> batch``, as `rfho.HostStream` takes it: the same batch for the same step.
        batches: how many are held ready, 1 or more.

    Raises:
        ValueError: ``batches`` is less than 1.

    Example:
        >>> import numpy as np, rfho
        >>> from rfho.adapters.ahead import Ahead
        >>> stream = rfho.HostStream(Ahead(lambda t: np.full(2, t, np.float32)))
        >>> stream(3).tolist(), stream(4).tolist()
        ([3.0, 3.0], [4.0, 4.0])
    """

    def __init__(self, load: Callable[[int], Batch], batches: int = 2) -> None:
        if batches < 1:
            raise ValueError(f"Ahead got batches={batches}, but it must be 1 or more")
        self.load = load
        self.batches = batches
        self._coming: dict[int, Future[Batch]] = {}
        self._last: int | None = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1)

    def __call__(self, t: int) -> Batch:
        """The batch of step t."""
        with self._lock:
            asked = self._coming.pop(t, None) or self._thread.submit(self.load, t)
            step = -1 if self._last is not None and t < self._last else 1
            self._last = t
            following = [t + step * i for i in range(1, self.batches + 1)]
            for stale in self._coming.keys() - set(following):
                self._coming.pop(stale).cancel()
            for i in following:
                # What lies past the end may fail; nobody will ask.
                if i >= 0 and i not in self._coming:
                    self._coming[i] = self._thread.submit(self.load, i)
        return asked.result()
