"""Compressed files and archives, unpacked only as far as is wanted and never beyond a stated size.

A few bytes of a compressed file can stand for any number of bytes. A stream counts what it gives and
refuses to go on; a member of an archive is refused by the size in its header, before it is unpacked; and
what a size or a name in a header says counts only if the bytes agree.
"""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from rfho.files.refusal import MOST_BYTES, MOST_MEMBERS, damaged, parsing, readable

_CHUNK = 2**20
_ENCRYPTED = 1


class Unpacked:
    """The bytes of a file or of a member of one, of which there are at most ``most``."""

    def __init__(self, path: Path, stream: io.BufferedIOBase, most: int) -> None:
        self.path, self._stream = path, stream
        self._most = self._left = most

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes, or fewer at the end of the file.

        Raises:
            DataFormatError: damaged, or more than was to be expected has been read.
        """
        parts: list[bytes] = []
        while count and (part := self._next(min(count, _CHUNK))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Reads what is left, so that a checksum at the end of the file is compared."""
        while self._next(_CHUNK):
            pass

    def _next(self, count: int) -> bytes:
        with parsing(self.path):
            content = self._stream.read(count)
        self._left -= len(content)
        if self._left < 0:
            raise damaged(
                self.path, f"unpacks to more than {self._most} bytes, which were expected"
            )
        return content


@contextmanager
def unpacked(path: Path, most: int = MOST_BYTES) -> Generator[Unpacked]:
    """A file of at most ``most`` bytes, decompressed if its name ends in ``.gz``, as a stream.

    Raises:
        DataFormatError: no file, or compressed and damaged.
    """
    opening = gzip.open if path.suffix == ".gz" else open
    with parsing(path):
        stream = opening(readable(path), "rb")
    with stream:
        yield Unpacked(path, stream, most)


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The whole content of a file, decompressed if its name ends in ``.gz``.

    Raises:
        DataFormatError: damaged, or more than ``most`` bytes.
    """
    with unpacked(path, most) as stream:
        return stream.read(most + 1)


def tar_members(
    path: Path, wanted: Callable[[str], bool], *, most: int = MOST_BYTES
) -> dict[str, bytes]:
    """The files of a tar archive whose names are ``wanted``, in their order; nothing is written to disk.

    The archive is read once from its beginning to its end, so that no header can send the reader back.

    Raises:
        DataFormatError: damaged, larger than ``most`` bytes, or a name is there twice.
    """
    found: dict[str, bytes] = {}
    with unpacked(path, most) as stream:
        reader: Any = stream
        with parsing(path):
            archive = tarfile.open(fileobj=reader, mode="r|")  # noqa: SIM115 (closes nothing of its own)
        for number, member in enumerate(_each_member(path, archive)):
            if number >= MOST_MEMBERS:
                raise damaged(path, f"has more than {MOST_MEMBERS} members")
            if not (wanted(member.name) and member.isreg()):
                continue
            if member.name in found:
                raise damaged(path, f"has two members {member.name!r}")
            found[member.name] = _content(path, archive, member, most)
        stream.finish()
    return found


def _each_member(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        with parsing(path):
            member = archive.next()
        if member is None:
            return
        yield member


class Zipped(NamedTuple):
    """A zip archive whose list of members makes sense; made by `zipped`.

    Attributes:
        path: the file.
        members: by name.
    """

    path: Path
    members: dict[str, zipfile.ZipInfo]
    archive: zipfile.ZipFile

    def size(self, name: str) -> int:
        """The bytes that a member unpacks to."""
        return self.members[name].file_size

    @contextmanager
    def opened(self, name: str) -> Generator[Unpacked]:
        """A member as a stream, which compares the checksum when its last byte is read."""
        with parsing(self.path):
            stream = cast("io.BufferedIOBase", self.archive.open(self.members[name]))
        with stream:
            yield Unpacked(self.path, stream, self.size(name))


@contextmanager
def zipped(path: Path, most: int = MOST_BYTES) -> Generator[Zipped]:
    """A zip archive, each of whose members unpacks to at most ``most`` bytes.

    Raises:
        DataFormatError: no zip file, damaged; or a member is larger, encrypted, there twice, or
            compressed in another way than by deflation.
    """
    with parsing(path):
        if not zipfile.is_zipfile(readable(path)):
            raise damaged(path, "is no zip or npz file")
        archive = zipfile.ZipFile(path)
    with archive:
        yield Zipped(path, dict(_checked_members(path, archive, most)), archive)


def _checked_members(
    path: Path, archive: zipfile.ZipFile, most: int
) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    seen: set[str] = set()
    if len(archive.infolist()) > MOST_MEMBERS:
        raise damaged(path, f"has more than {MOST_MEMBERS} members")
    for member in archive.infolist():
        if member.filename in seen:
            raise damaged(path, f"has two members {member.filename!r}")
        if member.file_size > most:
            raise damaged(
                path,
                f"has a member {member.filename!r} of {member.file_size} bytes, more than {most}",
            )
        if member.flag_bits & _ENCRYPTED:
            raise damaged(path, f"has an encrypted member {member.filename!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise damaged(
                path, f"has a member {member.filename!r} neither stored nor compressed by deflation"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise damaged(path, f"has a link {member.filename!r} in it")
        seen.add(member.filename)
        yield member.filename, member


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    """A plain file of an archive; a sparse one may be any number of zeros."""
    if member.issparse() or not 0 <= member.size <= most:
        raise damaged(path, f"has a member {member.name!r} of {member.size} bytes, or a sparse one")
    with parsing(path):
        stream = archive.extractfile(member)
        content = b"" if stream is None else stream.read()
    if len(content) != member.size:
        raise damaged(path, f"ends within its member {member.name!r}")
    return content
