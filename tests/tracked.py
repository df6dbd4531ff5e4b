"""A run that says all that a run can say: numbers, arrays, a static entry, a finding."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.checks import Finding, Kind
from rfho.checks.diagnosis import Where
from rfho.outer import Report, Start

HYPER = {"cut": 2.0, "lr": 0.05, "penalty": {"l2": jnp.array([0.3, 0.1, 0.2])}, "power": 2}
SETTINGS = {"data": "digits (8 x 8)", "seed": 3}


def error(w, hyper, batch):
    return jnp.mean((w - batch) ** hyper["power"])


def loss(w, hyper, batch):
    # A cut stands on its flat side, so that there is a finding.
    penalty = hyper["penalty"]["l2"] * jnp.clip(hyper["cut"], 0.0, 1.0)
    return error(w, hyper, batch) + jnp.sum(penalty * w**2)


PROBLEM = rfho.Problem(
    rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(3)),
    error,
    jnp.ones(3),
    jnp.asarray(2.0),
    horizon=4,
)
OUTER = optax.sgd(0.01)

with_finding = pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")


def tuned(tracker, optim=OUTER, steps=4, throw=True):
    return rfho.tune(PROBLEM, HYPER, optim=optim, steps=steps, listeners=[tracker], throw=throw)


def taken_back(tracker):
    """A run that goes back to its step 2 when it has come to its step 4, told to a tracker; which reports stand."""
    tracker.start(Start(PROBLEM, rfho.Tuner().method, (HYPER,), 5, OUTER))
    before, after = ([report_of(k, retries) for k in range(1, 6)] for retries in (0, 1))
    for one in before[:4]:
        tracker.step(one)
    tracker.finding(Finding(Kind.TAKEN_BACK, Where(step=5), "outer step 2 is taken again"))
    for one in after[1:]:
        tracker.step(one)
    tracker.close(rfho.Result.STEPS_DONE)
    return [before[0], *after[1:]]


def report_of(k, retries=0, member=0):
    one = np.float64(k + 10 * retries)
    return Report(k, {"lr": one}, float(one), {"lr": one}, {}, 0.1, member, retries)
