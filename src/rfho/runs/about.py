"""What a run is besides its settings and results: which experiment, how it was made, how it ended."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rfho.errors import WriteError
from rfho.files import damaged, overwrite, parsing, read_json, write_file

RUNNING, FINISHED, INTERRUPTED, FAILED, KILLED = (
    "running",
    "finished",
    "interrupted",
    "failed",
    "killed",
)
"""How a run stands. No run says of itself that it was killed: it says "running" and has no living owner."""

_PACKAGES = ("rfho", "jax", "jaxlib", "optax", "equinox", "lineax", "numpy", "scipy")
_BLOCK, _ROOM = 4096, 1024


class About(NamedTuple):
    """What is known of a run besides its settings and results.

    Attributes:
        experiment: the name of the experiment.
        title: of the report.
        summary: what the experiment does, in a sentence or two.
        command: the command line that made the run.
        started: local time with its offset, ISO 8601.
        seconds: duration, or None while it runs.
        status: "running", "finished", "interrupted", "failed" or "killed".
        reason: why it failed, or what it was interrupted by.
        versions: of Python, the packages and the operating system.
    """

    experiment: str
    title: str
    summary: str
    command: str
    started: str
    seconds: float | None
    status: str
    reason: str
    versions: Mapping[str, str]


def read_about(path: Path) -> About:
    """What the file of a run says.

    Raises:
        DataFormatError: it is damaged.
    """
    about: About = read_json(path, About)
    if about.status not in (RUNNING, FINISHED, INTERRUPTED, FAILED):
        raise damaged(path, f"says that the run is {about.status[:80]!r}, which none is")
    with parsing(path):
        datetime.datetime.fromisoformat(about.started)
    return about


def write_about(path: Path, about: About) -> None:
    """Writes it down, also where nothing else can be written any more.

    There is room in the file for a longer reason, so that it can be changed in its place on a disk that has
    become full.

    Raises:
        WriteError: not even that is possible.
    """
    content = _encoded(about)
    try:
        write_file(path, content.ljust(-(-(len(content) + _ROOM) // _BLOCK) * _BLOCK))
    except WriteError:
        if not path.is_file():
            raise
        fits = len(content) <= path.stat().st_size
        overwrite(path, content if fits else _encoded(about._replace(reason="")))


def versions() -> dict[str, str]:
    """Of the interpreter, the packages that numbers depend on, and the system."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    processors = f"{os.cpu_count()} processors"
    return versions | {"system": f"{platform.system()} {platform.machine()}, {processors}"}


def _encoded(about: About) -> bytes:
    text = json.dumps(about._asdict(), ensure_ascii=False, indent=1)
    return text.encode("utf-8", errors="replace")
