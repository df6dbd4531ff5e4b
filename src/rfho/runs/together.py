"""A run whose arrays lie over several processes: how they take one folder, and one snapshot of those in it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rfho.errors import SnapshotError
from rfho.files import make_folder
from rfho.outer import (
    Peers,
    Sections,
    Snapshot,
    Standing,
    Start,
    attempt,
    drop_snapshots,
    load_snapshot,
    mesh_of,
    peers_of,
)
from rfho.runs.owner import claim
from rfho.runs.run_folder import RunFolder
from rfho.typing import PyTree

_PART = "process-"


def peers_of_run(run: Start, standings: Sequence[Standing]) -> Peers:
    """The processes of a run that is to be kept.

    Raises:
        ValueError: several of them, and several members, or arrays that lie by no mesh.
    """
    arrays = (run.problem, [one.state for one in standings])
    mesh_of(arrays)
    peers = peers_of(arrays)
    if not peers.alone and len(standings) > 1:
        raise ValueError(
            f"run= keeps one start whose arrays lie over several processes, but there are {len(standings)}: tune "
            "them one after another, each with a folder of its own, or leave run= out"
        )
    return peers


def is_part(path: Path) -> bool:
    """Whether a folder within that of a run is the part of another process."""
    return path.name.startswith(_PART)


def claimed(folder: Path, peers: Peers, check: Callable[[RunFolder], None]) -> RunFolder:
    """The part of a run's folder that this process owns, once each of them has its own.

    Args:
        folder: of the run, which all processes see.
        peers: they.
        check: looks whether the folder holds a run.

    Raises:
        RunFolderError: it belongs to a run that goes on, or holds something else.
        SnapshotError: that is so for another process.
        WriteError: nothing can be written there.
    """
    owned: list[RunFolder] = []

    def own() -> None:
        path = folder if peers.leads else folder / f"{_PART}{peers.index}"
        make_folder(path)
        owned.append(RunFolder(path, claim(path)))
        check(owned[0])

    try:
        # The first one alone decides whether the folder is one of this run; before, nobody puts anything into it.
        peers.check(attempt(own) if peers.leads else None)
        peers.check(None if peers.leads else attempt(own))
    except BaseException:
        for one in owned:
            one.release()
        raise
    return owned[0]


def latest_of_all(
    folder: Path, like: Callable[[Sections], PyTree], peers: Peers
) -> Snapshot | None:
    """The latest snapshot of which every process has its part whole; later ones are gone then.

    Args:
        folder: of the snapshots of this process.
        like: as of `rfho.outer.load_snapshot`.
        peers: the processes.

    Raises:
        SnapshotError: there is none though there was one, or it is of another run.
    """
    if peers.alone:
        return load_snapshot(folder, like)
    below, remarks = None, list[str]()
    while True:
        found: list[Snapshot | None] = []
        peers.check(attempt(lambda: found.append(load_snapshot(folder, like, below=below))))  # noqa: B023 (at once)
        one = found[0]
        remarks += [] if one is None else [each for each in one.remarks if each not in remarks]
        numbers = [int(number) for (number,) in peers.gathered(0 if one is None else one.number)]
        first, lowest = numbers[0], min(numbers)
        if lowest == max(numbers) or not first:
            break
        below, behind = lowest + 1, numbers.index(lowest)
        if not lowest:
            raise SnapshotError(
                f"process {behind} of this run has no snapshot where process 0 has one (this process looked in "
                f"{folder}): give all of them the same folder, on a file system that all of them see"
            )
        if first > lowest:  # what the first one has not committed is none
            remarks.append(
                f"snapshot {first} is not taken: process {behind} has not its part of it whole"
            )
    taken = one if first else None
    drop_snapshots(folder, 0 if taken is None else taken.number)
    if taken is None:
        return None
    return taken._replace(remarks=tuple(remarks))
