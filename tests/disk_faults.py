"""Faults of the disk under a function that writes: every call to the system fails once, with every error."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ERRORS = (
    errno.ENOSPC,
    errno.EIO,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EFBIG,
    errno.EMFILE,
)
"""Full, broken, over quota, read-only, forbidden, over the limit of a file, no more files."""

CALLS = ("open", "write", "fsync", "replace", "ftruncate", "close")
"""What writing is made of."""


class Faults:
    """Counts calls to the system below a folder, and lets one of them fail.

    Args:
        folder: only calls that concern it are counted.
        call: the name of a function of `os`.
        at: which call fails, counted from 0; None counts only.
        number: with which error.
    """

    def __init__(self, folder: Path, call: str, at: int | None, number: int) -> None:
        self.folder, self.call, self.at, self.number = folder, call, at, number
        self.seen, self.reached = 0, False

    @contextlib.contextmanager
    def on(self) -> Iterator["Faults"]:
        with pytest.MonkeyPatch.context() as patch:
            true = getattr(os, self.call)
            patch.setattr(os, self.call, lambda *args, **named: self._called(true, *args, **named))
            yield self

    def _called(self, true: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if not self._concerns(args[0]):
            return true(*args, **named)
        number, self.seen = self.seen, self.seen + 1
        if number != self.at:
            return true(*args, **named)
        self.reached = True
        if self.call == "write":  # half of it is written first, as on a disk that fills up
            true(args[0], args[1][: len(args[1]) // 2])
        if self.call == "close":
            true(*args)
        raise OSError(self.number, os.strerror(self.number))

    def _concerns(self, file: Any) -> bool:
        if isinstance(file, int):
            with contextlib.suppress(OSError):
                file = os.readlink(f"/proc/self/fd/{file}")
        return str(file).startswith(str(self.folder))


def count(folder: Path, call: str, action: Callable[[], object]) -> int:
    """How often an action calls the system."""
    with Faults(folder, call, None, 0).on() as faults:
        action()
    return faults.seen


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of a certain size; skips where one may not mount."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a file system needs root")
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("this machine does not let one mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def filled(folder: Path) -> None:
    """Leaves no byte free."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
