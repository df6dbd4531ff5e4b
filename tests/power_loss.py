"""What a folder holds after the power has failed at any moment of a recorded action.

Every call that changes a folder is recorded. Then the disk is put together as it may be after any number of
them: content that was not brought to the disk by fsync may be there or not, and so may names that were
changed since their folder was.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Change = tuple[
    str, int | None
]  # a path, and the number of the file that is there from now on; None for nothing
FOLDER = -1


class Disk:
    """A model of a disk.

    Attributes:
        contents: of every file, as the programs see it.
        synced: the content of every file that is safe.
        names: all changes of names that are safe, in order.
        pending: those that are not yet.
    """

    def __init__(self) -> None:
        self.contents: list[bytearray] = []
        self.synced: list[bytes] = []
        self.names: list[Change] = []
        self.pending: list[Change] = []

    def file(self, content: bytes = b"") -> int:
        self.contents.append(bytearray(content))
        self.synced.append(b"")
        return len(self.contents) - 1

    def sync_folder(self, folder: str) -> None:
        inside = [change for change in self.pending if os.path.dirname(change[0]) == folder]
        self.names += inside
        self.pending = [change for change in self.pending if change not in inside]

    def after(self, *, names: bool, content: bool) -> dict[str, bytes | int]:
        """What lies on the disk, with the names and the content that are not safe, or without."""
        found: dict[str, Any] = {}
        for path, number in [*self.names, *(self.pending if names else [])]:
            if number is None:
                found.pop(path, None)
            else:
                found[path] = number
        held = [bytes(each) for each in self.contents] if content else self.synced
        return {
            path: number if number == FOLDER else held[number] for path, number in found.items()
        }


class Recorder:
    """Records the calls that change a folder, and calls ``look`` after each of them."""

    def __init__(self, folder: Path, look: Callable[[Disk], None]) -> None:
        self.folder, self.look, self.disk = str(folder), look, Disk()
        self.files: dict[str, int] = {}
        self.open_files: dict[int, tuple[str, int]] = {}
        for path in sorted(folder.rglob("*")):
            number = FOLDER if path.is_dir() else self.disk.file(path.read_bytes())
            self.files[str(path)] = number
            self.disk.names.append((str(path), number))
        self.disk.synced = [bytes(content) for content in self.disk.contents]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "close", "write", "pwrite", "ftruncate", "fsync", "replace"):
                patch.setattr(os, name, self._recorded(name))
            for name in ("link", "unlink", "mkdir", "rmdir"):
                patch.setattr(os, name, self._recorded(name))
            yield

    def _recorded(self, name: str) -> Callable[..., Any]:
        true, note = getattr(os, name), getattr(self, f"_{name}")

        def called(*args: Any, **named: Any) -> Any:
            result = true(*args, **named)
            note(result, *args)
            self.look(self.disk)
            return result

        return called

    def _change(self, path: Any, number: int | None) -> None:
        if not str(path).startswith(self.folder):
            return
        self.disk.pending.append((str(path), number))
        if number is None:
            self.files.pop(str(path), None)
        else:
            self.files[str(path)] = number

    def _open(self, file: int, path: Any, flags: int, *_: Any) -> None:
        path = str(path)
        if not path.startswith(self.folder):
            return
        if path not in self.files and not stat.S_ISDIR(os.fstat(file).st_mode):
            self._change(path, self.disk.file())
        number = self.files.get(path, FOLDER)
        if number != FOLDER and flags & os.O_TRUNC:
            self.disk.contents[number].clear()
        self.open_files[file] = (path, number)

    def _close(self, _: None, file: int) -> None:
        self.open_files.pop(file, None)

    def _write(self, count: int, file: int, content: Any) -> None:
        if file in self.open_files:
            self.disk.contents[self.open_files[file][1]] += bytes(content[:count])

    def _pwrite(self, count: int, file: int, content: Any, at: int) -> None:
        if file in self.open_files:
            self.disk.contents[self.open_files[file][1]][at : at + count] = bytes(content[:count])

    def _ftruncate(self, _: None, file: int, size: int) -> None:
        if file in self.open_files:
            del self.disk.contents[self.open_files[file][1]][size:]

    def _fsync(self, _: None, file: int) -> None:
        if file not in self.open_files:
            return
        path, number = self.open_files[file]
        if number == FOLDER:
            self.disk.sync_folder(path)
        else:
            self.disk.synced[number] = bytes(self.disk.contents[number])

    def _replace(self, _: None, source: Any, target: Any) -> None:
        number = self.files.get(str(source))
        self._change(target, number)
        self._change(source, None)

    def _link(self, _: None, source: Any, target: Any) -> None:
        self._change(target, self.files.get(str(source)))

    def _unlink(self, _: None, path: Any) -> None:
        self._change(path, None)

    def _mkdir(self, _: None, path: Any, *__: Any) -> None:
        self._change(path, FOLDER)

    def _rmdir(self, _: None, path: Any) -> None:
        self._change(path, None)


def every_disk(
    folder: Path,
    action: Callable[[], object],
    check: Callable[[Path], object],
    *,
    lasting: Callable[[Path], object] | None = None,
) -> int:
    """Checks copies of the folder as it may be after a power failure at any moment of an action.

    Args:
        folder: where the action writes.
        action: what is recorded.
        check: looks at each copy.
        lasting: looks at the folder as it is at least once the action is done.

    Returns:
        How many disks were looked at.
    """
    seen: list[dict[str, Any]] = []

    def look(disk: Disk) -> None:
        for names in (False, True):
            for content in (False, True):
                found = disk.after(names=names, content=content)
                if found not in seen:
                    seen.append(found)

    recorder = Recorder(folder, look)
    with recorder.on():
        action()
    for number, found in enumerate(seen):
        check(_put_together(found, folder, folder.parent / f"after-{number}"))
    if lasting is not None:
        last = recorder.disk.after(names=False, content=False)
        lasting(_put_together(last, folder, folder.parent / "after-all"))
    return len(seen)


def _put_together(found: dict[str, Any], folder: Path, copy: Path) -> Path:
    copy.mkdir()
    for path, content in sorted(found.items()):
        target = copy / os.path.relpath(path, folder)
        if not target.parent.is_dir():
            continue
        if content == FOLDER:
            target.mkdir()
        else:
            target.write_bytes(content)
    return copy
