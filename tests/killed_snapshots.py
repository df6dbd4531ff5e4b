"""Saves snapshots without end, and looks whether a whole one is there; see `killed`."""

import itertools
from pathlib import Path

import numpy as np

from rfho.outer.snapshot import load_snapshot, save_snapshot


def state(n: int) -> dict[str, np.ndarray]:
    return {"w": np.full(30_000, n), "v": np.full(7, n, np.float32)}


def save(folder: Path) -> None:
    found = load_snapshot(folder, lambda _: state(0))
    first = 1 if found is None else 1 + int(found.state["w"][0])
    for n in itertools.count(first):
        save_snapshot(folder, state(n), {"n": {"n": n}}, keep=2)


def check(folder: Path) -> None:
    found = load_snapshot(folder, lambda _: state(0))
    if found is None:
        assert not list(folder.glob("*/commit.json"))
        return
    n = found.sections["n"]["n"]
    assert found.remarks == ()
    for name, array in state(n).items():
        np.testing.assert_array_equal(found.state[name], array)
    last = folder / "last"
    assert n >= (int(last.read_text()) if last.exists() else 0)
    last.write_text(str(n))
