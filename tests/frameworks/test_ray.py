"""Ray: a trial whose worker is killed ends with the bits of one that nobody killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

import rfho

pytest.importorskip("ray.tune", reason="ray is not installed: pip install 'ray[tune]'")

PROGRAM = Path(__file__).with_name("ray_study.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_snapshot_with_the_same_bits(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, str(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["killed"] == 1
    assert said["of the other"]["error"] == "None"
    assert said["of the other"]["training_iteration"] == 6
    assert said["of the killed"] == said["of the other"]


def test_a_trial_that_diverges_fails_with_what_is_not_finite():
    from rfho.adapters.ray import trainable

    def build(config):
        square = lambda w, hyper, batch: (w - 1) ** 2  # noqa: E731
        dynamics = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
        return rfho.Problem(dynamics, square, horizon=200), {"lr": 1e4}

    trial = trainable(build, steps=2)({})
    with pytest.raises(rfho.HyperGradientError, match="outer step 1: the objective became NaN"):
        trial.step()
    trial.stop()
