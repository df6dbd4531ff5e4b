"""The way forward and back of an estimate over a very long horizon, a segment at a time, from Python."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rfho._programs import trees as tree
from rfho.hyper_gradients.segments import Length, advance, pull_back
from rfho.memory import schedule
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree, State, Step


class SegmentedRun(NamedTuple):
    """One way forward and back over the segments of a problem, as ``method`` says.

    Attributes:
        problem: as it stands.
        hyper: the learned leaves of λ.
        method: a `LongReverseHyperGradient`: its ``segment``, ``slots``, ``shelf``, ``checkpoint`` and ``watch``.
    """

    problem: AbstractMoment
    hyper: Hyper
    method: Any

    @property
    def segments(self) -> int:
        """How many there are."""
        return -(-self.problem.horizon // self.method.segment)

    def forward(self, handle: Any, state: State) -> State:
        """To the end; with one slot per segment the shelf is filled on the way."""
        self.method.shelf.put(handle, 0, state)
        first, state = self._found(handle, state)
        for i in range(first, self.segments):
            after = self._begun(state, i)
            # The device has its next segment before a shelf makes us wait for its last copy.
            if self.method.slots is None and i > first:
                self.method.shelf.put(handle, i, state)
            self.method.watch.wait(state)
            state = after
            self._tell(i + 1)
            if self.method.watch.is_due():
                self._keep(handle, i)
            self.method.watch.look()
        return state

    def backward(self, handle: Any, cotangents: PyTree) -> PyTree:
        """Segment by segment, last first, each from its state on the shelf or run up to."""
        starts = self._from_slots(handle) if self.method.slots else self._from_shelf(handle)
        last_first = reversed(range(self.segments))
        before = self.method.watch.found("way back", (np.zeros((), np.int64), cotangents))
        skipped, cotangents = (0, cotangents) if before is None else before
        for done, (i, state) in enumerate(zip(last_first, starts, strict=True), start=1):
            if done <= skipped:
                continue
            begin, length = self._steps(i)
            given = state, cotangents
            cotangents = pull_back(
                self.problem, self.hyper, given, begin, length, self.method.checkpoint
            )
            self.method.watch.wait(given)
            self._tell(self.segments + 2 * done)
            if self.method.watch.is_due():
                self._keep(handle, self.segments - 1)
                so_far = np.asarray(done), cotangents
                self.method.watch.keep("way back", lambda given=so_far: given, again=True)
            self.method.watch.look()
        return cotangents

    def _tell(self, done: int) -> None:
        self.method.on_segment(done, 3 * self.segments)
        self.method.watch.segment(done, 3 * self.segments)

    def _found(self, handle: Any, state: State) -> tuple[int, State]:
        """How far an interrupted process has come on the way forward, its states on the shelf."""
        i = 0
        while self.method.slots is None and i + 1 < self.segments:
            after = self.method.watch.found(f"state {i + 1}", state)
            if after is None:
                break
            i, state = i + 1, after
            self.method.shelf.put(handle, i, state)
        return i, state

    def _keep(self, handle: Any, last: int) -> None:
        """The states on the shelf, as far as they are not kept; with few slots they are run up to again."""
        if self.method.slots is None:
            for i in range(1, last + 1):
                get = functools.partial(self.method.shelf.get, handle, i)
                self.method.watch.keep(f"state {i}", get)

    def _from_shelf(self, handle: Any) -> Iterator[State]:
        """The states at the starts of all segments, last first."""
        for i in reversed(range(self.segments)):
            yield self.method.shelf.get(handle, i)

    def _from_slots(self, handle: Any) -> Iterator[State]:
        """The same where only some are on the shelf: the others are run up to again."""
        moves = schedule(self.segments, self.method.slots or 1)
        for row in zip(*moves.rows, strict=True):
            i, source, first, last, start = map(int, row)
            state = self.method.shelf.get(handle, source)
            for move in range(first, last):
                begin, length, slot = (int(column[move]) for column in moves.table)
                state = self._run(state, begin, begin + length)
                self.method.shelf.put(handle, slot, state)
            yield self._run(state, start, i)

    def _run(self, state: State, start: int, stop: int) -> State:
        for i in range(start, stop):
            state = self.advanced(state, i)
        return state

    def advanced(self, state: State, i: int) -> State:
        """After segment i, begun once the segment before is done.

        One is under way at a time: progress and Ctrl-C mean what they say, and states do not pile up.
        """
        after = self._begun(state, i)
        self.method.watch.wait(state)
        return after

    def _begun(self, state: State, i: int) -> State:
        return advance(self.problem, self.hyper, state, *self._steps(i))

    def _steps(self, i: int) -> tuple[Step, Length]:
        start = i * self.method.segment
        length = min(self.method.segment, self.problem.horizon - start)
        return tree.known(start, np.int32), Length(length)
