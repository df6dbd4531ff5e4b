"""What a run is besides its settings and results: which experiment, how it was made, how it ended."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import NamedTuple

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
"""How a run stands; a run that was killed stays "running"."""

_PACKAGES = ("rfho", "jax", "jaxlib", "optax", "equinox", "lineax", "numpy", "scipy")


class About(NamedTuple):
    """What is known of a run besides its settings and results.

    Attributes:
        experiment: the name of the experiment.
        title: of the report.
        summary: what the experiment does, in a sentence or two.
        command: the command line that made the run.
        started: local time with its offset, ISO 8601.
        seconds: duration, or None while it runs.
        status: "running", "finished", "interrupted" or "failed".
        reason: why it failed.
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
