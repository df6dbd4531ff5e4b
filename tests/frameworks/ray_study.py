"""Two trials of Ray on one problem, the worker of the first of which is killed once; prints what came of them.

    python ray_study.py FOLDER

A program of its own, as Ray starts processes and sends them what it finds in this one.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ray
from ray import tune

import rfho
from rfho.adapters.ray import trainable
from rfho.outer import load_snapshot

STEPS, KILLED_AT = 6, 3
OPTIM = optax.adam(0.01)


def build(config):
    def loss(w, hyper, batch):
        return jnp.mean((w - batch) ** 2) + hyper["l2"] * jnp.sum(w**2)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(config["width"]))
    objective = lambda w, hyper, batch: jnp.mean((w - 0.3) ** 2)  # noqa: E731
    problem = rfho.Problem(dynamics, objective, jnp.linspace(0, 1, config["width"]), horizon=8)
    return problem, {"lr": 0.1, "l2": 0.01}


class Killing(tune.Callback):
    """Kills the worker of the trial that is to be killed, once."""

    def __init__(self):
        self.killed = []

    def on_trial_result(self, iteration, trials, trial, result, **info):
        due = result["training_iteration"] == KILLED_AT and trial.config["kill"]
        if due and not self.killed:
            self.killed.append(result["pid"])
            os.kill(result["pid"], signal.SIGKILL)


def last_state(result):
    """The bytes of all arrays of a trial's last checkpoint."""
    like = rfho.Tuner(optim=OPTIM).init(*build(result.config))
    with result.checkpoint.as_directory() as folder:
        found = load_snapshot(Path(folder), lambda _: like)
    return [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(found.state)]


def main():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    killing = Killing()
    results = tune.Tuner(
        trainable(build, steps=STEPS, optim=OPTIM),
        param_space={"width": 5, "kill": tune.grid_search([True, False])},
        run_config=tune.RunConfig(
            storage_path=sys.argv[1],
            callbacks=[killing],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    ).fit()
    said = {"killed": len(killing.killed)}
    for result in results:
        name = "of the killed" if result.config["kill"] else "of the other"
        metrics = {key: each for key, each in result.metrics.items() if key in REPORTED}
        said[name] = {"error": str(result.error), **metrics, "state": last_state(result)}
    ray.shutdown()
    sys.stdout.write(json.dumps(said) + "\n")


REPORTED = {"value", "hyper/lr", "hyper/l2", "training_iteration"}

if __name__ == "__main__":
    main()
