"""Tuning runs under real kills and signals: what was finished is not lost, and the end is the same to the bit."""

import json
import os
import signal
import subprocess
import sys

import pytest
from devices.flags import quickly
from killed import TESTS


def carried_out(*arguments: object, program: str = "killed_tuning.py") -> tuple[list[str], str]:
    """The lines that a program prints, and what it says of itself."""
    command = [sys.executable, str(TESTS / program), *map(str, arguments)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "XLA_FLAGS": quickly(),
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
    ("signals", "number", "rounds"),
    [
        pytest.param(1, signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, 2, marks=pytest.mark.slow),
        *(
            pytest.param(signals, number, 100, marks=pytest.mark.soak)
            for signals in (1, 2)
            for number in (signal.SIGINT, signal.SIGTERM)
        ),
    ],
)
def test_told_to_stop_at_any_moment_it_saves_and_leaves(tmp_path, signals, number, rounds):
    lines, errors = carried_out("stop", tmp_path, rounds, int(number), signals)
    assert lines == ["right"] * rounds, errors


@pytest.mark.soak
def test_killed_in_the_middle_of_a_long_sweep_back_it_goes_on_there(tmp_path):
    """With few slots: states are run up to again, and segments that were pulled back are not."""
    lines, _ = carried_out(tmp_path, 30_000, program="killed_long_sweep.py")
    assert lines[-1] == "same", lines


@pytest.mark.slow
class TestWithinALongProgram:
    """Of an outer step that is one program, by `waiting.py`: the snapshot is there before the program ends."""

    def test_the_first_signal_is_obeyed_after_it(self, tmp_path):
        ended = waited(tmp_path, "reverse", signal.SIGINT, 1)
        assert (ended["solution"], ended["code"]) == (["STOPPED", 2], 0)
        assert (ended["steps"], ended["status"]) == ([1, 2], "interrupted")

    @pytest.mark.parametrize(
        ("method", "number"),
        [
            ("reverse", signal.SIGTERM),
            ("many", signal.SIGINT),
            pytest.param("forward", signal.SIGINT, marks=pytest.mark.soak),
            pytest.param("real time", signal.SIGTERM, marks=pytest.mark.soak),
            pytest.param("long reverse", signal.SIGINT, marks=pytest.mark.soak),
            pytest.param("warm restart", signal.SIGTERM, marks=pytest.mark.soak),
        ],
    )
    def test_the_second_leaves_at_once_with_all_that_was_finished(self, tmp_path, method, number):
        """From a program that would never end; after Ctrl-C the solution is given back first."""
        ended = waited(tmp_path, method, number, 2)
        assert ended["code"] == 128 + number
        assert ended["seconds"] < AT_ONCE
        assert set(ended["steps"]) == {1}
        assert ended["status"] == "interrupted"
        assert ended["solution"] == (["STOPPED", 1] if number == signal.SIGINT else None)


AT_ONCE = 10.0
"""Seconds; tenths of one where nothing else runs."""


def waited(folder, *how):
    """What `waiting.py` tells of a run, of which a snapshot was there before the program ended."""
    lines, errors = carried_out(folder, *how, program="waiting.py")
    ended = json.loads(lines[-1])
    assert ended["saved"] < AT_ONCE, errors
    assert "came within a program" in errors
    return ended
