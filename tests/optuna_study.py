"""A study on SQLite that a test kills: python optuna_study.py DATABASE TRIALS."""

import sys
import warnings

import jax.numpy as jnp
import optax
import optuna

import rfho
from rfho.adapters.optuna import refine, suggest

DOMAIN = {"lr": rfho.Box(1e-3, 0.4), "l2": rfho.Box(1e-4, 1.0)}
TARGET = jnp.array([1.0, 2.0, -1.0])
STEPS = 30


def problem_of(power):
    """Built anew in every trial, with new functions each time."""

    def objective(w, hyper, batch):
        return jnp.mean(jnp.abs(w - batch) ** power)

    return rfho.Problem(
        rfho.Descent(
            lambda w, hyper, batch: objective(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2),
            lambda hyper: optax.sgd(hyper["lr"]),
            jnp.zeros(3),
        ),
        objective,
        TARGET,
        1.1 * TARGET,
        horizon=5,
    )


def start(trial):
    return suggest(trial, {"lr": 0.1, "l2": 0.1}, DOMAIN)


def objective(trial):
    power = trial.suggest_categorical("power", [2, 4])
    solution = refine(
        trial,
        problem_of(power),
        start(trial),
        optim=optax.adam(0.03),
        domain=DOMAIN,
        steps=STEPS,
    )
    return solution.best.value


def study_of(database):
    """One that a killed trial comes back to."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{database}",
        heartbeat_interval=1,
        grace_period=2,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )
    return optuna.create_study(
        study_name="powers",
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_of(sys.argv[1]).optimize(objective, n_trials=int(sys.argv[2]))
