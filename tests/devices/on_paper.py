"""Plans for problems over simulated devices, and what the compiler says of the same programs.

    python on_paper.py DEVICES PROBLEM PLACEMENT POLICY...

One line of JSON for each policy; `test_plan.py` runs it, in a process of its own since the number of devices is
fixed when JAX starts.
"""

import importlib
import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType

import rfho
from rfho import placement
from rfho.hyper_gradients import LongReverseHyperGradient, ReverseHyperGradient, plan

INPUTS, HIDDEN, BATCH, HORIZON = 64, 512, 64, 400
HYPER = {"lr": 0.1, "momentum": 0.9}
HALF = rfho.memory.HalfPrecision()
METHODS = {
    "StoreAll": ReverseHyperGradient(),
    "HalfPrecision": ReverseHyperGradient(rfho.StoreAll(encoding=HALF)),
    "Residuals": ReverseHyperGradient(rfho.StoreAll(rfho.Keep.RESIDUALS)),
    "Recompute": ReverseHyperGradient(rfho.Recompute()),
    "Binomial": ReverseHyperGradient(rfho.Binomial(10)),
    "Replay": ReverseHyperGradient(rfho.Replay()),
    "Anchored": ReverseHyperGradient(rfho.Anchored(every=10)),
    "LongReverse": LongReverseHyperGradient(20, slots=5),
}


def loss(w, hyper, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(jnp.tanh(x @ w["in"]) @ w["between"]) @ w["out"] - y) ** 2)


def network(dynamics):
    """A problem, given as arrays, of which no array is anywhere."""

    def made():
        start = {
            "in": jnp.zeros((INPUTS, HIDDEN)),
            "between": jnp.zeros((HIDDEN, HIDDEN)),
            "out": jnp.zeros(HIDDEN),
        }
        data = jnp.zeros((BATCH, INPUTS)), jnp.zeros(BATCH)
        return rfho.Problem(dynamics(start), loss, data, data, HORIZON)

    return eqx.filter_eval_shape(made), HYPER


def descent(start):
    optim = lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"])  # noqa: E731
    return rfho.Descent(loss, optim, start)


def heavy_ball(start):
    coefficients = lambda hyper, t: hyper["lr"], lambda hyper, t: hyper["momentum"]
    return rfho.HeavyBall(loss, *coefficients, init=start)


def one_billion():
    """The transformer of the documentation."""
    big_run = importlib.import_module("big_run")
    return big_run.one_billion(), big_run.hyper


PROBLEMS = {
    "network": lambda: network(descent),
    "heavy_ball": lambda: network(heavy_ball),
    "one_billion": one_billion,
}


def main():
    sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "how-to"))
    number, problem, place, *names = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(number))
    mesh = jax.make_mesh((int(number) // 2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    methods = [METHODS[name] for name in names]
    options = {"mesh": mesh, "placement": getattr(placement, place), "check": True}
    found = plan(*PROBLEMS[problem](), methods, **options)
    for name, need in zip(names, found.needs, strict=True):
        figures = need._replace(method=None)._asdict()
        sys.stdout.write(json.dumps({"policy": name, "on each": found.on_each, **figures}) + "\n")


if __name__ == "__main__":
    main()
