"""Two processes keep one run: whoever dies, and whatever a disk does to a part, both go on with the same bits."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.outer import Peers

PROGRAM = Path(__file__).with_name("kept_by_two.py")
WITHIN = 60  # s, where JAX itself would take 100


def said(folder, kills):
    """What each of the two said, and what was said of both."""
    command = [sys.executable, str(PROGRAM), str(folder), str(kills)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = {0: {}, 1: {}, None: {}}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            found[one.pop("process", None)] |= one
    assert {"same"} <= set(found[0]) & set(found[1]), done.stderr[-4000:]
    return found


@pytest.mark.slow
def test_stopped_then_killed_and_with_a_bit_flipped_both_go_on_with_the_same_bits(tmp_path):
    folder = tmp_path / "run"
    found = said(folder, kills=0)
    first, second, both = found[0], found[1], found[None]
    assert first["stopped"] == second["stopped"] == "STOPPED"
    assert first["lost"] == "PROCESS_LOST"
    assert both["reason"].startswith("another process of")
    assert both["seconds"] < WITHIN

    assert (first["same"], second["same"]) == (True, True)
    assert first["steps"] == second["steps"] == 6
    sentence = f"snapshot {both['flipped']} is not taken: process 1 has not its part of it"
    assert any(sentence in remark for remark in first["remarks"])
    assert any("does not hold what was written" in remark for remark in second["remarks"])
    assert second["refused"].startswith("WriteError")
    assert first["refused"].startswith("SnapshotError: process 1 of this run cannot go on")
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    rows = (folder / "history.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


class Slow(Peers):
    """This process, the first, and one that is never done with writing unless it is waited for."""

    def __init__(self):
        super().__init__()
        self.count = 2

    def gathered(self, *numbers):
        return np.array([numbers, (0, 1) if len(numbers) == 2 else (0,) * len(numbers)])


class Looker(rfho.Listener):
    """Notes which snapshots there are, once the latest is written."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def step(self, report):
        written = self.folder / f"{report.step - 1:08d}" / "head.json"
        while report.step > 1 and not written.exists():
            time.sleep(1e-3)
        time.sleep(0.02)
        self.seen.append([path.parent.name[-1] for path in self.folder.glob("*/commit.json")])


def test_what_others_have_not_written_is_no_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr("rfho.runs.together.peers_of", lambda tree: Slow())
    dynamics = rfho.Descent(lambda w, h, b: h * w**2, lambda h: optax.sgd(h), jnp.ones(()))
    problem = rfho.Problem(dynamics, lambda w, h, b: w**2, horizon=1)
    looker = Looker(tmp_path / "run" / "snapshots")
    run = rfho.Run(tmp_path / "run", every=1, keep=1)
    rfho.tune(problem, 0.1, steps=4, run=run, listeners=[looker])
    assert looker.seen == [[], [], ["1"], ["2"]]
    assert [path.name[-1] for path in looker.folder.iterdir()] == ["4"]


@pytest.mark.soak
def test_killed_at_any_moment_both_go_on_with_the_same_bits(tmp_path):
    found = said(tmp_path / "run", kills=20)
    for process in (0, 1):
        assert (found[process]["same"], found[process]["steps"]) == (True, 800)
    assert int(found[None]["killed at"]) < 800  # the last kill, too, came in the middle
