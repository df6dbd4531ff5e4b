"""What is kept of a run that goes on, and how all of it is found again.

The reports lie in a log that grows with every step, the states in snapshots now and then. A snapshot says how
far the logs were when it was made: whoever goes on from it cuts off what came later, and so the history
has neither a gap nor a step twice.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from rfho.errors import SnapshotError
from rfho.files import damaged, inside
from rfho.outer import (
    Form,
    Lying,
    Peers,
    Plain,
    Report,
    Sections,
    Standing,
    Start,
    attempt,
    commit_snapshot,
    differences,
    layouts_of,
    mesh_of,
    parts_of,
    save_snapshot,
)
from rfho.runs.log import Log, Place
from rfho.runs.pace import Pace
from rfho.runs.records import read_reports
from rfho.runs.standings import (
    arrays_like,
    arrays_of,
    estimate_like,
    form_of,
    standing_of,
    words_of,
)
from rfho.runs.sweeps import Pages
from rfho.runs.together import latest_of_all
from rfho.typing import PyTree

SNAPSHOTS, SWEEP, REPORTS, HISTORY = "snapshots", "sweep", "reports.bin", "history.jsonl"
"""Where in the folder of a run all this is."""

_NOTHING = Place(0, hashlib.sha256().hexdigest())
_POSITION, _LAYOUT, _SEPARATOR = "position", "layout", "\n"


class Keeper:
    """The logs and snapshots of one run in a folder that this process owns.

    Of arrays that lie over several processes each keeps its own parts, and all decide together when: what they do
    alone is to write. A snapshot is one once all have written their parts, and the first has committed its own.

    Attributes:
        run: what is tuned.
        sections: what has to be the same in a run that goes on.
        forms: of the reports of each member, once one is known.
        latest: gives where all members stand; None before the first step.
        failure: why what was to be kept could not be written, here or by another process.
    """

    def __init__(
        self,
        folder: Path,
        run: Start,
        *,
        sections: Sections,
        pace: Pace,
        row: Callable[[Report], str],
        peers: Peers,
    ) -> None:
        self.run, self.sections = run, sections
        self.forms: list[Form] = []
        self.latest: Callable[[], tuple[Standing, ...]] | None = None
        self.failure: Exception | None = None
        self._folder, self._pace, self._peers = folder, pace, peers
        self._history, self._reports = Log(folder / HISTORY), Log(folder / REPORTS)
        self._standings: tuple[Standing, ...] = ()
        self._row, self._told = row, [(0, 0)] * len(run.hypers)
        self._unsaved, self._last = 0, time.monotonic()
        self._saved = tuple(self._told)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rfho-run")
        self._saving: Future[Any] | None = None
        self.pages = Pages(
            folder / SWEEP, sections, seconds=pace.seconds, thread=self._thread, first=self.save
        )

    def restored(
        self, standings: tuple[Standing, ...], allow: Sequence[str]
    ) -> tuple[tuple[Standing, ...] | None, tuple[str, ...]]:
        """Where the members stood in the last good snapshot, and what there is to say of later ones.

        Raises:
            SnapshotError: the snapshots are of another run, or all are damaged.
        """
        self._standings = standings
        lying: list[Lying] = []
        mesh = mesh_of((self.run.problem, [one.state for one in standings]))

        def like(sections: Sections) -> PyTree:
            _check_same(self._folder, sections, self.sections, allow)
            self._rewind(sections[_POSITION])
            stats = tuple(filter(None, str(sections[_POSITION]["stats"]).split(_SEPARATOR)))
            shapes = estimate_like(self.run, standings[0])
            self.forms = [form_of(one, shapes.value, stats) for one in standings]
            lying[:] = [
                Lying.of(arrays_like(one, form, shapes, words=words), words.get(_LAYOUT), mesh)
                for one, form, words in zip(
                    standings, self.forms, _words(sections, len(standings)), strict=True
                )
            ]
            return [one.like for one in lying]

        found = latest_of_all(inside(self._folder, SNAPSHOTS), like, self._peers)
        if found is None:
            self._history.rewind(_NOTHING)
            self._reports.rewind(_NOTHING)
            return None, ()
        histories = read_reports(self._reports, self.forms)
        self._told = [_last(history) for history in histories]
        members = tuple(
            standing_of(each.whole(parts), words, form, history)
            for each, parts, words, form, history in zip(
                lying,
                found.state,
                _words(found.sections, len(lying)),
                self.forms,
                histories,
                strict=True,
            )
        )
        self._saved = _marks(members)
        return members, found.remarks

    def add(self, report: Report) -> None:
        """Notes a report, and its row for people to read, unless that is done."""
        if (report.retries, report.step) <= self._told[report.member]:
            return
        if not self.forms:
            value = jax.tree.map(lambda _: 0.0, report.value)
            self.forms = [form_of(one, value, tuple(report.stats)) for one in self._standings]
        row, record = self._row(report), self.forms[report.member].encoded(report)
        with self._reports.together():
            self._reports.append(record)
            self._history.append(f"{row}\n".encode())
        self._told[report.member] = report.retries, report.step

    def keep(self, standings: Callable[[], tuple[Standing, ...]], *, last: bool) -> None:
        """Saves where all stand, if it is time; the file is written while the loop goes on.

        Raises:
            WriteError: the snapshot before this one could not be written, or this last one.
        """
        self.latest = standings
        self._unsaved += 1
        seconds = time.monotonic() - self._last
        busy = self._saving is not None and not self._saving.done()
        due = self._pace.is_due(self._unsaved, seconds, busy=busy)
        if not self._peers.alone:
            said = self._peers.gathered(due, busy)
            due = bool(said[0, 0])
            if not said[:, 1].any():
                self.wait()  # for nothing: what all have written is made a snapshot
        if last or due:
            self.save()
        if last:
            self.wait()

    def save(self) -> None:
        """Begins to save where all stand, if that is not saved yet."""
        if self.latest is None:
            return
        self.wait()
        standings = self.latest()
        marks = _marks(standings)
        if marks == self._saved or not all(map(_is_good, standings)):
            return
        for one in standings:
            # The last one may not have been told, if another listener failed in between.
            for report in one.history[-1:]:
                self.add(report)
        sections = self.sections | self._said(standings)
        state = [arrays_of(one) for one in standings]
        for i, one in enumerate([] if self._peers.alone else state):
            sections[f"member {i}"][_LAYOUT] = layouts_of(one)
            state[i] = parts_of(one)
        self._unsaved, self._last, self._saved = 0, time.monotonic(), marks
        self._saving = self._thread.submit(self._write, state, sections)

    def wait(self) -> None:
        """Until nothing is being saved; raises what went wrong."""
        self.pages.written()
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        try:
            self._peers.check(attempt(saving.result))
            if not self._peers.alone:
                self._peers.check(attempt(lambda: self._commit(saving.result())))
        except Exception as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Frees the logs, once what is being saved is saved."""
        self._thread.shutdown()
        self._history.close()
        self._reports.close()

    def _write(self, state: PyTree, sections: Sections) -> int:
        # The logs first: a snapshot never knows of more than there is.
        self._reports.sync()
        self._history.sync()
        first_of_many = self._peers.leads and not self._peers.alone
        number = save_snapshot(
            self._folder / SNAPSHOTS,
            state,
            sections,
            # The others keep one more: they do not know whether the first has committed the one before this.
            keep=self._pace.keep + (not self._peers.leads),
            commit=not first_of_many,
        )
        self.pages.clear()
        return number

    def _commit(self, number: int) -> None:
        """All have written their parts."""
        if self._peers.leads:
            commit_snapshot(self._folder / SNAPSHOTS, number, keep=self._pace.keep)

    def _said(self, standings: tuple[Standing, ...]) -> Sections:
        history, reports = self._history.place, self._reports.place
        position: dict[str, Plain] = {
            "step": max(len(one.history) for one in standings),
            "history": history.size,
            "history sha256": history.sha256,
            "reports": reports.size,
            "reports sha256": reports.sha256,
            "stats": _SEPARATOR.join(self.forms[0].stats) if self.forms else "",
        }
        members = {f"member {i}": words_of(one) for i, one in enumerate(standings)}
        return {_POSITION: position, **members}

    def _rewind(self, position: dict[str, Plain]) -> None:
        for name, log in (("history", self._history), ("reports", self._reports)):
            size, digest = position.get(name), position.get(f"{name} sha256")
            if not isinstance(size, int) or not isinstance(digest, str):
                raise damaged(log.path, "has no place in the snapshot")
            log.rewind(Place(size, digest))


def _last(history: Sequence[Report]) -> tuple[int, int]:
    return (history[-1].retries, history[-1].step) if history else (0, 0)


def _marks(standings: Sequence[Standing]) -> tuple[Any, ...]:
    """What changes with each outer step, and when a member goes back."""
    return tuple((one.retries, len(one.history)) for one in standings)


def _is_good(standing: Standing) -> bool:
    """Whether a member is finite and stands where its history ends; of one that has ended that is known."""
    state = standing.state
    return standing.ended is not None or (
        bool(state.finite) and int(state.step) == len(standing.history)
    )


def _words(sections: Sections, members: int) -> list[dict[str, Plain]]:
    return [sections[f"member {i}"] for i in range(members)]


def _check_same(folder: Path, then: Sections, now: Sections, allow: Sequence[str]) -> None:
    said = differences(then, now, allow=allow)
    if said:
        names = sorted({sentence.partition(" (")[0] for sentence in said})
        raise SnapshotError(
            f"the run in {folder} is not the one that would go on: {'; '.join(said)}. Choose another folder for "
            f"a new run; or, if it is to go on all the same, say so by rfho.Run(…, allow={names})"
        )
