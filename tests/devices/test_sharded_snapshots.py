"""Snapshots keep arrays that lie over devices, whatever happens to their writer and their bytes."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

import rfho

PROGRAM = Path(__file__).with_name("sharded_snapshots.py")


@pytest.mark.parametrize(
    ("rounds", "flips"),
    [
        pytest.param(2, 20, marks=pytest.mark.slow),
        pytest.param(100, 100, marks=pytest.mark.soak),
    ],
)
def test_killed_and_damaged_what_is_taken_is_whole_and_lies_as_it_lay(tmp_path, rounds, flips):
    command = [sys.executable, str(PROGRAM), str(tmp_path), str(rounds), str(flips)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["whole"] * rounds, done.stderr


def test_several_starts_over_several_processes_are_refused_by_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("rfho.outer.peers.Peers.alone", False)
    dynamics = rfho.Descent(lambda w, h, b: h * w**2, lambda h: optax.sgd(h), jnp.ones(()))
    problem = rfho.Problem(dynamics, lambda w, h, b: w**2, horizon=1)
    with pytest.raises(
        ValueError, match="lie over several processes, but there are 2: tune them one"
    ):
        rfho.tune_many(problem, [0.1, 0.2], steps=1, run=rfho.Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
