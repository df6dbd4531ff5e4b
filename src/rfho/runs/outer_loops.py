"""The outer loops of an experiment, each kept in a folder inside that of the run: `rfho resume` goes on by them.

An experiment that was interrupted is gone through once more from its beginning, with the same settings. Each
outer loop that it comes to gives the reports that it gave before, and goes on from its last snapshot; what lies
between the loops is computed anew.
"""

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rfho.errors import Result
from rfho.files import Planned, inside, make_folder, naming, write_file
from rfho.hyper_gradients import Watch
from rfho.outer import AbstractRun, Peers, Report, Standing, Start
from rfho.runs.experiment import USER_ERRORS
from rfho.runs.forecast import written
from rfho.runs.keeper import HISTORY, Keeper
from rfho.runs.owner import claim
from rfho.runs.pace import Pace
from rfho.runs.report import write_report
from rfho.runs.run import MINUTE, taken_over
from rfho.runs.run_folder import CONTENTS, RunFolder, open_run_folder

_LOOPS, _PACE = "loops", Pace(MINUTE, 2)
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


class OuterLoop(AbstractRun):
    """One outer loop of an experiment: what ``run=`` of `rfho.iterate` takes there.

    Args:
        folder: of the run; this process owns it.
        name: of the loop, which no other one of the experiment has.

    Attributes:
        replayed: outer steps that an earlier process took: their reports come again at once.

    Example:
        An experiment's outer loop looks like this::

            for report in rfho.iterate(problem, hyper, run=OuterLoop(folder, "weights"), ...):
                folder.record({"step": report.step, "value": report.value})
    """

    replays = True

    def __init__(self, folder: RunFolder, name: str) -> None:
        self.path = inside(folder.path, _LOOPS, _NOT_PLAIN.sub("-", name.lower()))
        self.replayed, self._allow = 0, folder.allow
        self._keeper: Keeper | None = None

    def written(self, run: Start, standings: tuple[Standing, ...]) -> tuple[Planned, ...]:
        """Snapshots, pages and history."""
        return written(self.path, run, standings, _PACE)

    def restored(self, run: Start, standings: tuple[Standing, ...]) -> tuple[Standing, ...] | None:
        """Where all members stood.

        Raises:
            SnapshotError: the earlier run was another one, or none of its snapshots is whole.
            WriteError: the folder cannot be written to.
        """
        make_folder(self.path)
        self._keeper, found, _ = taken_over(
            self.path, run, standings, pace=_PACE, allow=self._allow, peers=Peers()
        )
        self.replayed = max((len(one.history) for one in found or ()), default=0)
        return found

    def step(self, report: Report) -> None:
        """Notes it."""
        if self._keeper is not None:
            self._keeper.add(report)

    def keep(self, standings: Callable[[], tuple[Standing, ...]], *, last: bool) -> None:
        """Saves a snapshot, if it is time."""
        if self._keeper is not None:
            self._keeper.keep(standings, last=last)

    def estimate_kept(self) -> Watch:
        """Keeps it, too."""
        return Watch() if self._keeper is None else self._keeper.pages

    def close(self, result: Result) -> None:
        """Saves where the loop ended.

        Raises:
            WriteError: the disk did not take it.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            try:
                keeper.save()
                keeper.wait()
            finally:
                keeper.close()


@contextmanager
def taken_up(path: Path, allow: Sequence[str]) -> Generator[RunFolder]:
    """Around an experiment that goes on: its folder, owned by this process and without what it came to.

    One that cannot go on, for want of its data, say, before it has come to anything leaves the folder's results.

    Args:
        path: of the folder.
        allow: what may be different from what it was; see `rfho.Run`.

    Raises:
        RunFolderError: there is no run in it, or it goes on.
        DataFormatError: it is damaged.
    """
    open_run_folder(path)
    folder = RunFolder(path, claim(path), tuple(allow))
    places = [inside(path, name) for name in (HISTORY, CONTENTS)]
    before = {place: place.read_bytes() for place in places if place.exists()}
    for place in places:
        with naming(place):
            place.unlink(missing_ok=True)
    try:
        yield folder
    except USER_ERRORS:
        if not any(place.exists() for place in places):
            for place, content in before.items():
                write_file(place, content)
            write_report(folder)
        raise
