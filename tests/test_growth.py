"""What many calls and many outer steps leave behind: no program, no descriptor, and no memory but the history."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from killed import TESTS

import rfho


def grown(*arguments: object) -> tuple[int, float, int]:
    """Programs, bytes for each call or step, and descriptors, as `growth.py` says."""
    command = [sys.executable, str(TESTS / "growth.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    programs, memory, descriptors = done.stdout.split()
    return int(programs), float(memory), int(descriptors)


def test_a_report_holds_nothing_of_the_device():
    """A view of a device's array keeps that: 2 kB for a scalar, 5 kB a step."""
    dynamics = rfho.Descent(
        lambda w, h, b: (w - h["a"]) ** 2, lambda h: optax.sgd(0.25), jnp.zeros(())
    )
    problem = rfho.Problem(dynamics, lambda w, h, b: (w - 1) ** 2, horizon=1)
    solution = rfho.tune(problem, {"a": 0.5}, steps=2)
    held = [(report.hyper, report.hypergradient) for report in solution.history]
    leaves = jax.tree.leaves(held)
    assert len(leaves) == 4
    for leaf in leaves:
        assert not isinstance(leaf, jax.Array)
        assert isinstance(leaf, np.generic) or leaf.flags.owndata


@pytest.mark.soak
def test_a_thousand_calls_compile_nothing_after_the_first():
    programs, memory, descriptors = grown("calls", 1000)
    assert (programs, descriptors) == (0, 0)
    assert memory < 1000


@pytest.mark.soak
def test_outer_steps_keep_their_reports_and_nothing_else():
    programs, memory, descriptors = grown("steps", 10**5)
    assert (programs, descriptors) == (0, 0)
    assert memory < 2000
