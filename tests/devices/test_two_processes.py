"""Two processes of one device each, whose collectives go by loopback, find what one process finds."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("on_two_processes.py")
ROOT = Path(__file__).parents[2]
# What each change is held to; the others are for `make soak`.
SHORT = ["tune by StoreAll", "LongReverse on disk"]
LONG = ["StoreAll", "Recompute", "LongReverse", "tune by LongReverse on disk"]
CELLS = [*SHORT, *(pytest.param(cell, marks=pytest.mark.soak) for cell in LONG)]

pytestmark = pytest.mark.slow


@functools.cache
def results(cells):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        both = [running.enter_context(started(rank, folder, cells)) for rank in (0, 1)]
        said = [process.communicate(timeout=900) for process in both]
        assert os.listdir(folder) == []
    for process, (_, complaint) in zip(both, said, strict=True):
        assert process.returncode == 0, complaint[-3000:]
    lines = [out[out.index("{") :].splitlines() for out, _ in said]
    return [{cell["cell"]: cell["error"] for cell in map(json.loads, own)} for own in lines]


def started(rank, folder, cells):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(PROGRAM), str(rank), str(port()), folder, *cells]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@functools.cache
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("cell", CELLS)
def test_each_process_finds_its_part_of_what_one_finds(cell, rank):
    assert results(tuple(SHORT if cell in SHORT else LONG))[rank][cell] < 1e-12
