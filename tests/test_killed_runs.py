"""Tuning runs under real kills and signals: what was finished is not lost, and the end is the same to the bit."""

import os
import signal
import subprocess
import sys

import pytest
from killed import TESTS


def carried_out(*arguments: object) -> tuple[list[str], str]:
    """The lines that `killed_tuning` prints, and what it says of itself."""
    command = [sys.executable, str(TESTS / "killed_tuning.py"), *map(str, arguments)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, marks=pytest.mark.slow), pytest.param(112, marks=pytest.mark.soak)]
)
def test_killed_in_every_phase_the_end_is_the_same(tmp_path, rounds):
    """In each round once in each of nine phases."""
    lines, _ = carried_out("kill", tmp_path, rounds)
    assert len(lines) >= rounds
    assert set(lines) == {"same"}


@pytest.mark.parametrize(
    "rounds", [pytest.param(3, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("signals", [1, 2])
def test_told_to_stop_at_any_moment_it_saves_and_leaves(tmp_path, number, signals, rounds):
    lines, errors = carried_out("stop", tmp_path, rounds, int(number), signals)
    assert lines == ["right"] * rounds, errors
