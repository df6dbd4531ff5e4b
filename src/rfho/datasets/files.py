"""Where data files are found, and how one knows that they are the right ones.

A file is looked for in the folder that the environment variable ``RFHO_DATA`` names, then in the cache
folder of the user. One that is in neither is downloaded into the cache if it has a public home whose
checksum is known; otherwise the error says which file was looked for, where, and what to do.

A file that is found is compared with the checksum of the published one as well. Who has a file of his own
under that name says so in ``SHA256SUMS``, in the same folder, as ``sha256sum`` writes it: one line with a
checksum and a name. What is listed there is compared with that line, published or not.
"""

import hashlib
import logging
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pooch

from rfho.errors import DataFormatError, DataNotFoundError
from rfho.files import parsing, read_bytes, readable

VARIABLE = "RFHO_DATA"
"""The environment variable that names the folder of data files."""

LIST = "SHA256SUMS"
"""The file in a folder of data files that says which of them are the user's own."""

_LONGEST_LIST = 2**24
_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?((?!\.\./)[^/](?:(?!/\.\./).)*)")


class Home(NamedTuple):
    """The public home of a file.

    Attributes:
        url: where it is published.
        checksum: ``sha256:…`` or ``md5:…`` of the published file.
    """

    url: str
    checksum: str


def cache_folder() -> Path:
    """The user's cache folder, where downloads are kept."""
    return Path(pooch.os_cache("rfho"))


def find(*names: str, checksum: str | None = None) -> Path | None:
    """The first of several names (with ``/`` between folders) that exists, or None.

    Args:
        names: of files or folders; of a folder, the files that are listed in it are compared.
        checksum: ``sha256:…`` or ``md5:…`` of the published file, if it is known.

    Raises:
        DataNotFoundError: ``RFHO_DATA`` is set but names no folder.
        DataFormatError: the file is another than the published or the listed one.
    """
    for name in names:
        for folder in _folders():
            if (folder / name).exists():
                _compare(folder, name, checksum)
                return folder / name
    return None


def locate(name: str, *, home: Home | None, advice: str = "") -> Path:
    """The path of a data file, downloaded if need be.

    Args:
        name: path inside the folder of data files.
        home: where it is published, or None if no stable home with a known checksum exists.
        advice: how to obtain the file, for the error message.

    Raises:
        DataNotFoundError: it is in no folder, and has no home or could not be downloaded.
        DataFormatError: it is another than the published or the listed one.
    """
    found = find(name, checksum=home and home.checksum)
    if found is not None:
        return found
    if home is None:
        raise DataNotFoundError(f"{_looked_for(name)}{advice and f' ({advice})'}")
    return _download(name, home)


def _folders() -> list[Path]:
    """The folders to look in, the user's own first."""
    named = os.environ.get(VARIABLE)
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataNotFoundError(
            f"{VARIABLE} = {named!r} is no folder: set it to the folder of data files, or unset it"
        )
    return [folder, cache_folder()]


def _compare(folder: Path, name: str, published: str | None) -> None:
    """Compares a file, or the listed files of a folder, with what is known of them."""
    own = {
        listed: digest
        for listed, digest in _listed(folder).items()
        if listed == name or listed.startswith(f"{name}/")
    }
    for listed, digest in own.items():
        found = _digest(folder / listed, "sha256")
        if found != digest:
            raise DataFormatError(
                f"{folder / listed} has the SHA-256 checksum {found}, but {folder / LIST} says {digest}: "
                "replace the file by a fresh copy, or renew its line there"
            )
    if published is None or name in own:
        return
    algorithm, _, digest = published.partition(":")
    found = _digest(folder / name, algorithm)
    if found != digest:
        line = f"{_digest(folder / name, 'sha256')}  {name}"
        raise DataFormatError(
            f"{folder / name} has the checksum {algorithm}:{found}, but the published file has {published}: "
            "the file is damaged or another one; replace it by a fresh copy, or, if it is a file of your own, "
            f"add the line {line!r} to {folder / LIST}"
        )


def _listed(folder: Path) -> dict[str, str]:
    """The checksums of ``SHA256SUMS`` by name; none if there is no such file."""
    path = folder / LIST
    if not path.exists():
        return {}
    with parsing(path):
        lines = read_bytes(path, _LONGEST_LIST).decode("utf-8").splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    for number, match in enumerate(matches, start=1):
        if match is None:
            raise DataFormatError(
                f"{path}, line {number}: {lines[number - 1]!r} is not a SHA-256 checksum, two spaces and the "
                "name of a file in this folder, as sha256sum writes them"
            )
    return {match[2]: match[1] for match in matches if match}


def _digest(path: Path, algorithm: str) -> str:
    with parsing(path), readable(path).open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _looked_for(name: str) -> str:
    where = " and ".join(str(folder) for folder in _folders())
    return (
        f"data file {name!r} was looked for in {where}: put it there, or set {VARIABLE} to the "
        "folder that holds it"
    )


def _download(name: str, home: Home) -> Path:
    target = cache_folder() / name
    logging.getLogger(__name__).info("downloading %s from %s", name, home.url)
    try:
        with _quiet_pooch():
            pooch.retrieve(home.url, home.checksum, fname=target.name, path=target.parent)
    except OSError as error:  # every network error of requests is one, without a number
        reached = f"cannot be reached ({type(error).__name__})"
        reason = f"{home.url} {reached if error.errno is None else f'cannot be kept ({error})'}"
        raise DataNotFoundError(f"{_looked_for(name)}; {reason}") from error
    except ValueError as error:  # pooch on a wrong checksum
        reason = f"{home.url} sends a file whose checksum is not {home.checksum}"
        raise DataNotFoundError(f"{_looked_for(name)}; {reason}") from error
    return target


@contextmanager
def _quiet_pooch() -> Generator[None]:
    """Silences what pooch writes to stderr; our own log record says the same."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
