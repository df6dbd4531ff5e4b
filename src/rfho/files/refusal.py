"""How a data file is refused: one sentence that names the file, the place and what was expected.

A parser of somebody else's bytes may raise anything. `parsing` stands around each of them, so that a
damaged file ends as `DataFormatError` and nothing else. Nothing is unpacked beyond `MOST_BYTES`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rfho.errors import DataFormatError

MOST_BYTES = 2**30
"""No file is unpacked beyond 1 GiB and no array of a file is larger: CIFAR-10, the largest, has 0.18."""

MOST_MEMBERS = 100_000
"""No archive has more members: Omniglot, the one with the most, has 32,460 drawings."""


def damaged(path: Path, reason: str) -> DataFormatError:
    """The error about a file that is not what its name promises.

    Args:
        path: the file.
        reason: goes on from its name, such as "is no zip file".
    """
    return DataFormatError(f"{path} {reason}: the file is damaged, replace it by a fresh copy")


@contextmanager
def parsing(path: Path) -> Generator[None]:
    """Around a parser of a file: whatever it raises becomes `DataFormatError`.

    Too little memory is nobody's damage, and passes.

    Raises:
        DataFormatError: the block raised something.
    """
    try:
        yield
    except (DataFormatError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise damaged(path, f"cannot be read ({reason})") from error


def readable(path: Path, most: int = MOST_BYTES) -> Path:
    """``path``, if it is a file of at most ``most`` bytes.

    Raises:
        DataFormatError: it is a folder, a pipe or a device, is larger, or cannot be looked at.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataFormatError(f"{path} is no file, but a data file was expected there")
    except OSError as error:
        raise DataFormatError(f"{path} cannot be read ({error.strerror})") from error
    if size > most:
        raise damaged(path, f"has {size} bytes, and at most {most} were expected")
    return path
