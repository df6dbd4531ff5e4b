"""Who writes to the folder of a run: one process, and no second one while the first lives.

The owner is written down in ``owner.json``: machine, process, and when that process started, so that another
process of the same number is not taken for it. The file is made whole and with a link, which fails if there
is one; a dead owner's is replaced at once. Both happen while the guard is locked, so that of any number
of processes that try at the same moment one becomes the owner.
"""

import contextlib
import datetime
import json
import os
import platform
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

from rfho.errors import DataFormatError
from rfho.files import PARTIAL, inside, naming, read_json, remove_partial, write_file

try:
    import fcntl
except ImportError:  # a system without it: the link alone has to do
    fcntl: Any = None

OWNER, GUARD = "owner.json", ".owner.guard"
"""The files of this module in a folder; the guard is empty and stays."""


class RunFolderError(DataFormatError):
    """A folder that a run cannot be written to or read from; one line with the fix."""


class Owner(NamedTuple):
    """A process on a machine.

    Attributes:
        host: the name of the machine.
        boot: changes when it is started anew; empty where that is not known.
        namespace: within which process numbers are told apart (of a container, say).
        process: the number of the process.
        started: when it started, in the system's own count.
        since: when it became the owner, ISO 8601.
    """

    host: str
    boot: str
    namespace: str
    process: int
    started: str
    since: str


class Claim(NamedTuple):
    """That this process owns a folder, until `release`.

    Attributes:
        folder: what is owned.
        owner: this process.
        locked: the descriptor of the owner's file, which is open and locked; empty after `release`.
    """

    folder: Path
    owner: Owner
    locked: list[int]

    def release(self) -> None:
        """Gives the folder up, if there still is one; nothing in a process that was forked from the owner."""
        if self.owner.process != os.getpid():
            return
        with contextlib.suppress(OSError, DataFormatError), _guarded(self.folder):
            path = self.folder / OWNER
            if self.locked and os.fstat(self.locked[0]).st_ino == path.stat().st_ino:
                path.unlink()
        while self.locked:
            os.close(self.locked.pop())


def claim(folder: Path, *, fresh: bool = False) -> Claim:
    """Makes this process the owner of an existing folder.

    Args:
        folder: of a run.
        fresh: whether there must be nothing in it, not even what a dead owner has left.

    Raises:
        RunFolderError: it has an owner who lives, or is not empty though it must be.
        WriteError: nothing can be written there.
    """
    with _guarded(folder):
        if fresh and any(path.name != GUARD for path in folder.iterdir()):
            raise RunFolderError(
                f"the folder {folder} is not empty: choose another with --out, or empty it first"
            )
        owner = read_owner(folder)
        if owner is not None and is_alive(folder, owner):
            raise RunFolderError(_refusal(folder, owner))
        with naming(folder / OWNER):
            (folder / OWNER).unlink(missing_ok=True)
        mine = _this_process()
        _write_down(folder, mine)
        remove_partial(folder)
        return Claim(folder, mine, [_locked(folder / OWNER)])


def read_owner(folder: Path) -> Owner | None:
    """Who owns a folder or has owned it when it died; None if nobody has since the last release.

    Raises:
        DataFormatError: the file is damaged.
    """
    path = inside(folder, OWNER)
    return read_json(path, Owner) if path.exists() else None


def is_alive(folder: Path, owner: Owner) -> bool:
    """Whether an owner still lives; of another machine one has to assume it."""
    here = _this_process()
    if owner.boot != here.boot:
        return owner.host != here.host
    if owner.namespace != here.namespace or (owner.host != here.host and not here.boot):
        return _is_locked(folder / OWNER)
    return _start_of(owner.process) == owner.started


def _write_down(folder: Path, owner: Owner) -> None:
    """Makes the owner's file whole, unless there is one: also where files cannot be locked."""
    whole = folder / f".{OWNER}.{os.getpid()}{PARTIAL}"
    try:
        write_file(whole, json.dumps(owner._asdict()).encode())
        os.link(whole, folder / OWNER)
    except FileExistsError as error:
        raise RunFolderError(f"the folder {folder} has just got another owner") from error
    except PermissionError:  # a file system without links
        write_file(folder / OWNER, whole.read_bytes())
    finally:
        whole.unlink(missing_ok=True)


def _refusal(folder: Path, owner: Owner) -> str:
    remedy = "wait until it ends, stop it, or choose another folder"
    if owner.host != platform.node():
        remedy = f"if it is over, remove {folder / OWNER}; otherwise choose another folder"
    return f"the folder {folder} belongs to process {owner.process} on {owner.host} since {owner.since}: {remedy}"


@contextlib.contextmanager
def _guarded(folder: Path) -> Generator[None]:
    """Only one process at a time is inside; the system frees the guard of one that dies."""
    with naming(folder / GUARD):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        file = os.open(folder / GUARD, flags, 0o666)
    try:
        _lock(file, wait=True)
        yield
    finally:
        os.close(file)


def _locked(path: Path) -> int:
    """The owner's file, open and locked as long as this process lives."""
    with naming(path):
        file = os.open(path, os.O_RDWR)
    _lock(file, wait=False)
    return file


def _is_locked(path: Path) -> bool:
    """Whether a process anywhere on this machine holds the owner's file."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return True
    try:
        return not _lock(file, wait=False)
    finally:
        os.close(file)


def _lock(file: int, *, wait: bool) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _this_process() -> Owner:
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    process = os.getpid()
    return Owner(
        platform.node(),
        _first_line("/proc/sys/kernel/random/boot_id"),
        _target("/proc/self/ns/pid"),
        process,
        _start_of(process) or "",
        since,
    )


def _start_of(process: int) -> str | None:
    """When a process started; None if there is none, or only what its parent has not asked for yet."""
    try:
        state, *fields = _first_line(f"/proc/{process}/stat").rpartition(") ")[2].split()
        return None if state in "ZX" else fields[18]
    except (ValueError, IndexError):
        return None if os.path.exists("/proc/self/stat") else _start_by_ps(process)


def _start_by_ps(process: int) -> str | None:
    """The same where there is no ``/proc``."""
    command = ["ps", "-o", "lstart=", "-p", str(process)]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    return None


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
