"""The folder of one run: everything that its report is made of, and nothing else.

    settings.toml     the settings, ready for ``rfho run --config``
    run.json          which experiment, by which command, with which versions, and how it ended
    history.jsonl     one line per outer step, written at once
    contents.jsonl    what was added, in the order of the report
    owner.json        the process that writes to it
    pictures/*.png, tables/*.json and *.md, arrays/*.npz

A run that dies at any moment leaves a folder that can still be read. A folder that somebody else has made
is read without trust: no name in it leads out of it, and no value is used before its kind is known.
"""

import contextlib
import dataclasses
import datetime
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rfho.errors import DataFormatError
from rfho.files import (
    append_line,
    damaged,
    inside,
    make_folder,
    read_all_arrays,
    read_bytes,
    read_shapes,
    sync_file,
    write_file,
)
from rfho.runs.about import KILLED, RUNNING, About, read_about, versions, write_about
from rfho.runs.lines import Row, as_line, read_lines, standing_rows
from rfho.runs.owner import GUARD, OWNER, Claim, RunFolderError, claim, is_alive, read_owner
from rfho.runs.pictures import to_png
from rfho.runs.settings import to_toml
from rfho.runs.table import Table, from_json, to_json, to_markdown

_RUN, _SETTINGS = "run.json", "settings.toml"
_HISTORY, CONTENTS = "history.jsonl", "contents.jsonl"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_PLACES = {
    "picture": ("pictures", ".png"),
    "table": ("tables", ".json"),
    "arrays": ("arrays", ".npz"),
}
_PNG, _MOST_IN_A_PICTURE, _MOST_IN_A_TEXT = b"\x89PNG\r\n\x1a\n", 2**26, 2**24


class Item(NamedTuple):
    """One picture, table or set of arrays, with the sentence that explains it."""

    kind: str
    name: str
    caption: str


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A folder of a run; make one with `create_run_folder` or `open_run_folder`.

    Attributes:
        path: where it is.
        claim: that this process owns it; None for who only reads.
        allow: what may be different from an earlier run in it that is gone on with; see `rfho.Run`.
    """

    path: Path
    claim: Claim | None = dataclasses.field(default=None, compare=False, repr=False)
    allow: tuple[str, ...] = ()

    def begin(
        self, settings: object, *, experiment: str, title: str, summary: str, command: str
    ) -> None:
        """Writes the settings (a dataclass of them, or their text), and that the run has started."""
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        text = settings if isinstance(settings, str) else to_toml(settings)
        write_file(self.path / _SETTINGS, text.encode())
        described = (experiment, title, summary, command, started)
        self._write_about(About(*described, None, RUNNING, "", versions()))

    def finish(self, status: str, reason: str = "") -> None:
        """Notes how the run ended, and how long it took; also on a disk that is full."""
        about = read_about(inside(self.path, _RUN))
        started = datetime.datetime.fromisoformat(about.started).astimezone()
        seconds = (datetime.datetime.now().astimezone() - started).total_seconds()
        self._write_about(
            about._replace(status=status, reason=reason[:2000], seconds=round(seconds, 1))
        )

    def release(self) -> None:
        """Lets others own the folder."""
        if self.claim is not None:
            self.claim.release()

    def record(self, row: Mapping[str, object]) -> None:
        """Appends one outer step to the history: numbers (null if not finite), text or bools.

        Raises:
            TypeError: a value is an array: save it with `add_arrays`.
            WriteError: the disk does not take it; the history is as it was.
        """
        append_line(inside(self.path, _HISTORY), as_line(row))

    def add_picture(self, name: str, drawn: Figure, caption: str) -> None:
        """Saves a figure; one of the same name is replaced."""
        self._add(Item("picture", name, caption), to_png(drawn))

    def add_table(self, name: str, table: Table) -> None:
        """Saves a table, as Markdown too; one of the same name is replaced."""
        self._add(Item("table", name, table.title), to_json(table).encode())
        write_file(self.path / "tables" / f"{name}.md", to_markdown(table).encode())

    def add_arrays(self, name: str, arrays: Mapping[str, np.ndarray], caption: str) -> None:
        """Saves arrays as ``npz``; a set of the same name is replaced."""
        plain: dict[str, Any] = {key: np.asarray(value) for key, value in arrays.items()}
        objects = [key for key, array in plain.items() if array.dtype.hasobject]
        if objects:
            raise ValueError(
                f"the array {objects[0]!r} holds objects, which only pickle could save"
            )
        stream = io.BytesIO()
        np.savez_compressed(stream, **plain)
        self._add(Item("arrays", name, caption), stream.getvalue())

    def about(self) -> About:
        """What the run is; "killed" if it says that it runs and nobody runs it.

        Raises:
            RunFolderError: the folder holds no run.
            DataFormatError: what it holds is damaged.
        """
        path = inside(self.path, _RUN)
        if not path.exists():
            raise RunFolderError(
                f"{self.path} is not the folder of a run (there is no run.json in it): give a "
                "folder that `rfho run` has made"
            )
        about = read_about(path)
        return (
            about if about.status != RUNNING or self._is_owned() else about._replace(status=KILLED)
        )

    def settings_text(self) -> str:
        """The settings as TOML."""
        path = inside(self.path, _SETTINGS)
        if not path.exists():
            return ""
        try:
            return read_bytes(path, _MOST_IN_A_TEXT).decode("utf-8")
        except UnicodeDecodeError as error:
            raise damaged(path, f"is no text in UTF-8 ({error})") from error

    def history(self) -> list[dict[str, Any]]:
        """The outer steps recorded so far, without those that were taken back; see `rfho.Retry`.

        Raises:
            DataFormatError: the file is damaged.
        """
        return standing_rows(read_lines(inside(self.path, _HISTORY), Row).values)

    def contents(self) -> list[Item]:
        """What was added, in the order in which it first was, with the latest captions.

        Raises:
            DataFormatError: the file is damaged, or names what cannot be in the folder.
        """
        path = inside(self.path, CONTENTS)
        items: dict[tuple[str, str], Item] = {}
        for item in read_lines(path, Item).values:
            if item.kind not in _PLACES or not _NAME.fullmatch(item.name):
                raise damaged(
                    path, f"lists {item.kind[:80]!r} {item.name[:80]!r}, which no run has"
                )
            items[item.kind, item.name] = item
        return list(items.values())

    def remarks(self) -> list[str]:
        """What a reader of the folder should know of it."""
        return [
            f"The last line of {name} was cut off when the run was stopped, and is left out."
            for name, kind in ((_HISTORY, Row), (CONTENTS, Item))
            if read_lines(inside(self.path, name), kind).torn
        ]

    def picture(self, name: str) -> bytes:
        """The PNG of a picture."""
        path = self._place("picture", name)
        content = read_bytes(path, _MOST_IN_A_PICTURE)
        if not content.startswith(_PNG):
            raise damaged(path, "is no PNG file")
        return content

    def table(self, name: str) -> Table:
        """A table."""
        path = self._place("table", name)
        return from_json(read_bytes(path, _MOST_IN_A_TEXT), path)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """A set of arrays."""
        return read_all_arrays(self._place("arrays", name))

    def shapes(self, name: str) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shapes and types of a set of arrays."""
        return read_shapes(self._place("arrays", name))

    def discard(self) -> bool:
        """Removes the folder of a run that has not put anything into it; says whether it has."""
        begun = {self.path / name for name in (_SETTINGS, _RUN, OWNER, GUARD)}
        if set(self.path.iterdir()) - begun:
            return False
        self.release()
        with contextlib.suppress(OSError):
            for path in begun:
                path.unlink(missing_ok=True)
            self.path.rmdir()
        return True

    def sync(self) -> None:
        """Brings the history to the disk, as far as it is written."""
        sync_file(self.path / _HISTORY)

    def _write_about(self, about: About) -> None:
        write_about(self.path / _RUN, about)

    def _is_owned(self) -> bool:
        try:
            owner = read_owner(self.path)
        except DataFormatError:
            return False
        return owner is not None and is_alive(self.path, owner)

    def _add(self, item: Item, content: bytes) -> None:
        if not _NAME.fullmatch(item.name):
            raise ValueError(f"name = {item.name!r}: use lower-case letters, digits, '-' and '_'")
        make_folder(inside(self.path, _PLACES[item.kind][0]))
        write_file(self._place(item.kind, item.name), content)
        append_line(inside(self.path, CONTENTS), json.dumps(item._asdict()))

    def _place(self, kind: str, name: str) -> Path:
        folder, suffix = _PLACES[kind]
        return inside(self.path, folder, f"{name}{suffix}")


def create_run_folder(name: str, out: Path | None = None) -> RunFolder:
    """A fresh folder, of which this process is the owner until its `RunFolder.release`.

    Args:
        name: the folder is ``runs/NAME-YYYYmmdd-HHMMSS`` in the current folder;
        out: or this one.

    Raises:
        RunFolderError: ``out`` is not an empty folder, cannot be made, or has an owner.
    """
    try:
        path = _numbered(Path("runs"), name) if out is None else out
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path, claim(path, fresh=True))
    except OSError as error:
        raise RunFolderError(
            f"cannot make the folder {out or Path('runs')} ({error.strerror}): choose another with --out"
        ) from error


def open_run_folder(path: Path) -> RunFolder:
    """The folder of an earlier run, to be read.

    Raises:
        RunFolderError: there is no run in it.
        DataFormatError: it is damaged.
    """
    folder = RunFolder(path)
    folder.about()
    return folder


def _numbered(parent: Path, name: str) -> Path:
    """A new folder named after the time, with a number if two runs start in one second."""
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
