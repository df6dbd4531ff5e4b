"""The folder of one run: everything that its report is made of, and nothing else.

    settings.toml     the settings, ready for ``rfho run --config``
    run.json          which experiment, by which command, with which versions, and how it ended
    history.jsonl     one line per outer step, written at once
    contents.jsonl    what was added, in the order of the report
    pictures/*.png, tables/*.json and *.md, arrays/*.npz

A run that dies leaves a folder that can still be read.
"""

import dataclasses
import datetime
import json
import math
import numbers
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rfho.runs.about import RUNNING, About, versions
from rfho.runs.pictures import save_png
from rfho.runs.settings import to_toml
from rfho.runs.table import Table, from_json, to_json, to_markdown


class RunFolderError(ValueError):
    """A folder that a run cannot be written to or read from; one line with the fix."""


class Item(NamedTuple):
    """One picture, table or set of arrays, with the sentence that explains it."""

    kind: str
    name: str
    caption: str


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A folder of a run; make one with `create_run_folder` or `open_run_folder`."""

    path: Path

    def begin(
        self, settings: object, *, experiment: str, title: str, summary: str, command: str
    ) -> None:
        """Writes the settings, and that the run has started."""
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self._write("settings.toml", to_toml(settings))
        described = (experiment, title, summary, command, started)
        self._write_about(About(*described, None, RUNNING, "", versions()))

    def finish(self, status: str, reason: str = "") -> None:
        """Notes how the run ended, and how long it took."""
        about = self.about()
        started = datetime.datetime.fromisoformat(about.started)
        seconds = (datetime.datetime.now().astimezone() - started).total_seconds()
        self._write_about(about._replace(status=status, reason=reason, seconds=round(seconds, 1)))

    def record(self, row: Mapping[str, object]) -> None:
        """Appends one outer step to the history: numbers (null if not finite), text or bools.

        Raises:
            TypeError: a value is an array: save it with `add_arrays`.
        """
        line = json.dumps({key: _plain(key, value) for key, value in row.items()}, allow_nan=False)
        self._append("history.jsonl", line)

    def add_picture(self, name: str, drawn: Figure, caption: str) -> None:
        """Saves a figure; one of the same name is replaced."""
        save_png(drawn, self._file("pictures", name, ".png"))
        self._list(Item("picture", name, caption))

    def add_table(self, name: str, table: Table) -> None:
        """Saves a table, as Markdown too; one of the same name is replaced."""
        self._file("tables", name, ".json").write_text(to_json(table), encoding="utf-8")
        self._file("tables", name, ".md").write_text(to_markdown(table), encoding="utf-8")
        self._list(Item("table", name, table.title))

    def add_arrays(self, name: str, arrays: Mapping[str, np.ndarray], caption: str) -> None:
        """Saves arrays as ``npz``; a set of the same name is replaced."""
        plain = {key: np.asarray(value) for key, value in arrays.items()}
        _save_arrays(self._file("arrays", name, ".npz"), plain)
        self._list(Item("arrays", name, caption))

    def about(self) -> About:
        """What the run is.

        Raises:
            RunFolderError: the folder holds no run.
        """
        path = self.path / "run.json"
        try:
            return About(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise RunFolderError(
                f"{self.path} is not the folder of a run (there is no run.json in it): give a "
                "folder that `rfho run` has made"
            ) from error
        except (OSError, TypeError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read ({error}): run it again") from error

    def settings_text(self) -> str:
        """The settings as TOML."""
        path = self.path / "settings.toml"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def history(self) -> list[dict[str, Any]]:
        """The outer steps recorded so far.

        Raises:
            RunFolderError: the file is damaged.
        """
        return self._lines("history.jsonl")

    def contents(self) -> list[Item]:
        """What was added, in the order in which it first was, with the latest captions."""
        items: dict[tuple[str, str], Item] = {}
        for line in self._lines("contents.jsonl"):
            item = Item(**line)
            items[item.kind, item.name] = item
        return list(items.values())

    def picture(self, name: str) -> bytes:
        """The PNG of a picture."""
        return (self.path / "pictures" / f"{name}.png").read_bytes()

    def table(self, name: str) -> Table:
        """A table."""
        return from_json((self.path / "tables" / f"{name}.json").read_text(encoding="utf-8"))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """A set of arrays."""
        with np.load(self.path / "arrays" / f"{name}.npz", allow_pickle=False) as archive:
            return {key: archive[key] for key in archive}

    def discard(self) -> bool:
        """Removes the folder of a run that has not put anything into it; says whether it has."""
        begun = [self.path / name for name in ("settings.toml", "run.json")]
        if set(self.path.iterdir()) != set(begun):
            return False
        for path in begun:
            path.unlink()
        self.path.rmdir()
        return True

    def _write_about(self, about: About) -> None:
        self._write("run.json", json.dumps(about._asdict(), ensure_ascii=False, indent=1))

    def _write(self, name: str, text: str) -> None:
        """All or nothing: a reader never sees half a file."""
        partial = self.path / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / name)

    def _append(self, name: str, line: str) -> None:
        with (self.path / name).open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.exists():
            return []
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a killed run may leave half
        try:
            return [dict(json.loads(line)) for line in whole.split("\n") if line]
        except (TypeError, ValueError) as error:
            raise RunFolderError(f"{path} is damaged ({error}): run it again") from error

    def _list(self, item: Item) -> None:
        self._append("contents.jsonl", json.dumps(item._asdict(), ensure_ascii=False))

    def _file(self, folder: str, name: str, suffix: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise ValueError(f"name = {name!r}: use lower-case letters, digits, '-' and '_'")
        (self.path / folder).mkdir(exist_ok=True)
        return self.path / folder / f"{name}{suffix}"


def create_run_folder(name: str, out: Path | None = None) -> RunFolder:
    """A fresh folder: ``out``, or ``runs/NAME-YYYYmmdd-HHMMSS`` in the current folder.

    Raises:
        RunFolderError: ``out`` exists and is not an empty folder, or cannot be made.
    """
    try:
        if out is None:
            return RunFolder(_numbered(Path("runs"), name))
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    except OSError as error:
        path = out or Path("runs")
        raise RunFolderError(
            f"cannot make the folder {path} ({error.strerror}): choose another with --out"
        ) from error
    if occupied:
        raise RunFolderError(
            f"the folder {out} is not empty: choose another with --out, or empty it first"
        )
    return RunFolder(out)


def open_run_folder(path: Path) -> RunFolder:
    """The folder of an earlier run.

    Raises:
        RunFolderError: there is no run in it.
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


def _plain(key: str, value: object) -> object:
    """A number, text or None as JSON holds it; arrays of one element count as numbers."""
    if value is None or isinstance(value, bool | str):
        return value
    if not isinstance(value, numbers.Real):
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "biuf":
            raise TypeError(
                f"the history value {key!r} has the shape {array.shape} and the type "
                f"{array.dtype}: record a number, and save arrays with add_arrays"
            )
        value = array.item()
    if isinstance(value, numbers.Integral):
        return value if isinstance(value, bool) else int(value)
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As `numpy.savez_compressed`, for any name of an array; refuses what only pickle can hold."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
