"""On eight devices: the same hypergradient, an eighth of the tape on each, and nothing large sent around."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("on_eight_devices.py")
ROOT = Path(__file__).parents[2]

BASIC = ["StoreAll", "Recompute", "Binomial"]
METHODS = {"data": BASIC, "fsdp": [*BASIC, "Replay", "Residuals", "HostMemory"], "tensor": BASIC}
CELLS = [f"{place}, {method}" for place, methods in METHODS.items() for method in methods]
LONG = [f"{place}, LongReverse" for place in METHODS]
FEW_ROWS = ("Recompute", "Binomial", "Replay")
TUNE = ["fsdp, tune"]
ALL = [*CELLS, *LONG, *TUNE, "members"]

# What each change is held to; the others are for `make soak`.
SHORT = {
    "automatic": [
        "data, StoreAll",
        "fsdp, StoreAll",
        "fsdp, HostMemory",
        "tensor, StoreAll",
        "fsdp, LongReverse",
        "fsdp, tune",
        "members",
    ],
    "explicit": ["fsdp, StoreAll", "fsdp, LongReverse", "fsdp, tune"],
}

# Of the program's problem: 24 steps, and the larger of two matrices.
BYTES_OF_MATRIX = 16 * 128 * 8
BYTES_OF_TAPE = 24 * BYTES_OF_MATRIX

pytestmark = pytest.mark.slow


def each_cell(cells):
    """Each of them on both kinds of axes."""
    soak = lambda axes, cell: () if cell in SHORT[axes] else pytest.mark.soak  # noqa: E731
    rows = [(axes, cell) for axes in SHORT for cell in cells]
    return pytest.mark.parametrize(
        ("axes", "cell"), [pytest.param(*row, marks=soak(*row)) for row in rows]
    )


def result(axes, cell):
    short = SHORT[axes]
    return results(
        axes, tuple(short if cell in short else [each for each in ALL if each not in short])
    )[cell]


@functools.cache
def results(axes, cells):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), axes, *cells],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = map(json.loads, done.stdout.splitlines())
    return {cell.pop("cell"): cell for cell in said}


@each_cell(ALL)
def test_eight_devices_find_what_one_finds(axes, cell):
    assert result(axes, cell)["error"] < 1e-12


@each_cell([*CELLS, *LONG])
def test_what_comes_back_is_laid_out_as_what_was_given(axes, cell):
    assert result(axes, cell)["hypergradient as hyper"]
    assert result(axes, cell)["params as given"]


@each_cell(TUNE)
def test_tuning_changes_no_layout(axes, cell):
    assert result(axes, cell)["hyper as given"]
    assert result(axes, cell)["slots as given"]
    assert result(axes, cell)["params as given"]


@each_cell([cell for cell in CELLS if not cell.startswith("data")])
def test_each_device_has_its_own_part_of_the_tape(axes, cell):
    """No row of the tape is whole; of all memory of the program, few states weigh little more than a step's own."""
    assert result(axes, cell)["whole rows"] == []
    assert result(axes, cell)["share of memory"] <= (1 / 7 if "StoreAll" in cell else 1 / 5)


@each_cell([cell for cell in CELLS if cell.endswith(FEW_ROWS) and not cell.startswith("data")])
def test_each_device_has_its_own_part_of_each_further_row(axes, cell):
    """Where few rows are kept, a step's own arrays are most of the memory; what more rows need more is tape."""
    assert result(axes, cell)["share of rows"] <= 1 / 7


@each_cell(CELLS)
def test_nothing_larger_than_parameters_is_sent_around(axes, cell):
    assert result(axes, cell)["largest collective"] <= BYTES_OF_MATRIX < BYTES_OF_TAPE / 8


@each_cell(LONG)
def test_states_on_a_shelf_stay_spread(axes, cell):
    assert result(axes, cell)["states come back as laid"]
    # Two matrices and their momenta in three states.
    assert result(axes, cell)["spread arrays"] == (0 if cell.startswith("data") else 12)


@each_cell(TUNE)
def test_no_device_holds_a_whole_tape_between_outer_steps(axes, cell):
    assert result(axes, cell)["largest shard"] <= BYTES_OF_MATRIX


@each_cell(["members"])
def test_members_on_devices_of_their_own_need_not_talk(axes, cell):
    members = result(axes, cell)
    assert members["largest collective"] == 0
    assert members["hyper as given"]
