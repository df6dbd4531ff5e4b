"""An estimate that takes long, kept segment by segment: a run that was killed in its middle goes on there.

Each page is a snapshot of its own, of a state on the shelf or of the way back so far. A page is of one estimate:
it says by a digest of what that followed from, and no other estimate takes it.
"""

import contextlib
import hashlib
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfho.errors import SnapshotError
from rfho.files import damaged, inside
from rfho.hyper_gradients import Watch
from rfho.outer import Sections, load_snapshot, save_snapshot
from rfho.typing import PyTree

_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_PAGE, _OF, _NAME = "page", "of", "name"


class Pages(Watch):
    """What is kept of the estimate that goes on.

    Args:
        folder: of the pages, and of nothing else.
        run: what the run is; a page of another one is not taken.
        seconds: how often something is kept.
        thread: writes; what goes wrong there is raised when the next page is kept, or by `wait`.
        first: called before a page is kept: the outer state has to be safe too.
    """

    def __init__(
        self,
        folder: Path,
        run: Sections,
        *,
        seconds: float,
        thread: ThreadPoolExecutor,
        first: Callable[[], None],
    ) -> None:
        self._folder, self._run = folder, hashlib.sha256(repr(run).encode()).digest()
        self._seconds, self._thread, self._first = seconds, thread, first
        self._of, self._names = "", set[str]()
        self._saving: list[Future[Any]] = []
        self._last = time.monotonic()

    def begin(self, given: PyTree) -> None:
        """What pages have to be of from now on."""
        self._of, self._names = _digest(self._run, given), set[str]()

    def is_due(self) -> bool:
        """Whether it is time, and nothing is being written."""
        busy = any(not saving.done() for saving in self._saving)
        return not busy and time.monotonic() - self._last >= self._seconds

    def keep(self, name: str, value: Callable[[], PyTree], *, again: bool = False) -> None:
        """Begins to write a page, unless it is written.

        Raises:
            WriteError: an earlier one could not be written.
            DataFormatError: a link is in its place.
        """
        if name in self._names and not again:
            return
        self._first()
        self.written()
        self._names.add(name)
        sections: Sections = {_PAGE: {_OF: self._of, _NAME: name}}
        self._saving.append(
            self._thread.submit(save_snapshot, self._place(name), value(), sections, keep=1)
        )
        self._last = time.monotonic()

    def found(self, name: str, like: PyTree) -> PyTree | None:
        """A page of this estimate; one that is damaged, or of another, counts for nothing."""

        def form(sections: Sections) -> PyTree:
            if sections.get(_PAGE) != {_OF: self._of, _NAME: name}:
                raise damaged(self._place(name), "is another page, or of another estimate")
            return like

        try:
            page = load_snapshot(self._place(name), form)
        except (SnapshotError, ValueError, OSError):
            return None  # also where the thread that writes clears the pages of an earlier estimate just now
        if page is None:
            return None
        self._names.add(name)
        return page.state

    def clear(self) -> None:
        """Removes all pages: the estimate is over, and its outcome is safe."""
        if self._folder.is_dir() and not self._folder.is_symlink():
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)

    def written(self) -> None:
        """Until nothing is being written; raises what went wrong."""
        while self._saving:
            self._saving.pop().result()

    def _place(self, name: str) -> Path:
        return inside(self._folder.parent, self._folder.name, _NOT_PLAIN.sub("-", name.lower()))


def _digest(run: bytes, given: PyTree) -> str:
    """Of every bit of what an estimate follows from."""
    found = hashlib.sha256(run)
    leaves, structure = jax.tree.flatten(given)
    found.update(repr(structure).encode())
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.tobytes() if not array.dtype.hasobject else repr(leaf).encode())
    return found.hexdigest()
