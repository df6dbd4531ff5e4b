"""Names that somebody else wrote into a folder lead to files of that folder and nowhere else."""

import stat
from pathlib import Path

from rfho.errors import DataFormatError

_LONGEST = 200


def inside(folder: Path, *names: str) -> Path:
    """``folder / names[0] / names[1] …``, if that is in the folder whatever lies there.

    Args:
        folder: one that the user named; it may be a link itself.
        names: of folders and at last of a file, one by one; they need not exist.

    Raises:
        DataFormatError: a name is no plain name (``..``, absolute, with a slash), or leads to a link, a
            pipe or a device.
    """
    path = folder
    for name in names:
        if not _is_plain(name):
            raise DataFormatError(
                f"{folder} names a file {name[:_LONGEST]!r}, but only names of files in it are followed"
            )
        path = path / name
        kind = _kind(path)
        if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise DataFormatError(
                f"{path} is a link or no file, and is not followed: put the file itself there"
            )
    return path


def _is_plain(name: str) -> bool:
    return (
        0 < len(name) <= _LONGEST
        and name not in (".", "..")
        and not any(character in "/\\:" or ord(character) < 32 for character in name)
    )


def _kind(path: Path) -> int:
    """The kind of what lies there, 0 if nothing does."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0
