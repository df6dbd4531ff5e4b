"""Refusing what the disk has no room for, before anything of it is written."""

import errno
import os
import resource
import stat
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rfho.errors import WriteError


class Planned(NamedTuple):
    """What is going to be written into a folder.

    Attributes:
        what: it is, in words.
        folder: where, which need not be there yet.
        size: bytes, beyond what is there already.
        largest: bytes of its largest file.
        least: bytes that it could do with.
        by: how: an argument, as one writes it; "" where ``least`` is ``size``.
    """

    what: str
    folder: str
    size: int
    largest: int
    least: int
    by: str = ""


def refuse_what_has_no_room(planned: Sequence[Planned]) -> None:
    """Compares what is planned with what is free on its disks, and with the limit on the size of a file.

    Raises:
        WriteError: it does not fit; the message has all figures, and says what would fit.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    for one in planned:
        if limit != resource.RLIM_INFINITY and one.largest > limit:
            raise WriteError(
                errno.EFBIG,
                f"{one.folder} is to hold {one.what}, with a file of {as_bytes(one.largest)}, but the limit on the "
                f"size of a file (ulimit -f) is {as_bytes(limit)}: raise it{_or(one, limit)}",
            )
    disks = sorted((one for one in planned if one.size), key=_disk)
    for _, together in groupby(disks, _disk):
        _check_disk(list(together))


def free_on_disk(folder: str | Path) -> int | None:
    """Bytes that may still be written to the disk of a folder, which need not be there yet; None if unknown."""
    found = os.statvfs(_there(folder))
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks * found.f_frsize if found.f_blocks else None


def size_of(*paths: Path) -> int:
    """Bytes of files, and of all files in folders; links, and what is not there, have none."""
    inner = [Path(at, name) for path in paths for at, _, names in os.walk(path) for name in names]
    return sum(map(_size, (*paths, *inner)))


def as_bytes(count: int | float) -> str:
    """A number of bytes as one reads it: 1.2 MB."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _check_disk(planned: Sequence[Planned]) -> None:
    folder, free = planned[0].folder, free_on_disk(planned[0].folder)
    if free is None or sum(one.size for one in planned) <= free:
        return
    parts = ", ".join(f"{as_bytes(one.size)} for {one.what}" for one in planned)
    least = sum(one.least for one in planned)
    ways = " and ".join(dict.fromkeys(one.by for one in planned if one.by))
    smaller = f"; {ways} would take {as_bytes(least)}, which " if ways else ""
    fits = f"{smaller}fits" if least <= free else f"{smaller}does not fit either" if ways else ""
    raise WriteError(
        errno.ENOSPC,
        f"the disk of {folder} has {as_bytes(free)} free, but this run needs {parts}{fits}: free space, or choose "
        "a folder on another disk",
    )


def _or(planned: Planned, limit: int) -> str:
    """What else there is than to raise the limit, where all of it is in one file."""
    helps = planned.by and planned.largest == planned.size and planned.least <= limit
    return f", or give {planned.by}" if helps else ""


def _size(path: Path) -> int:
    with suppress(OSError):  # it may have gone in between
        found = path.lstat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0


def _there(folder: str | Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = Path(folder).absolute()
    return next(path for path in (place, *place.parents) if path.is_dir())


def _disk(planned: Planned) -> int:
    return _there(planned.folder).stat().st_dev
