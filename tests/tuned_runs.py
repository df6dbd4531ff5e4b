"""Problems and methods for tests of runs that are interrupted, and what makes two runs the same."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho

STEPS = 6


def loss(w, hyper, batch):
    return jnp.mean((batch @ w - 1.0) ** 2) + hyper["l2"] * jnp.sum(hyper["v"] * w**2)


def objective(w, hyper, batch):
    return jnp.mean((batch @ w - 1.0) ** 2)


@functools.cache
def problem(horizon: int = 12) -> rfho.Problem:
    """Ridge regression on minibatches, with one penalty for each weight."""
    draw = np.random.default_rng(0)
    data, valid = draw.normal(size=(12, 3)), draw.normal(size=(6, 3))
    dynamics = rfho.Descent(
        loss, lambda hyper: optax.sgd(hyper["lr"], hyper["momentum"]), jnp.zeros(3)
    )
    return rfho.Problem(dynamics, objective, rfho.Stream(data, 4, 1), valid, horizon)


def hyper(scale: float = 1.0) -> dict[str, Any]:
    """Numbers, an array, a fixed array, and an entry that is not learned."""
    return {
        "lr": 0.05 * scale,
        "momentum": jnp.asarray(0.9),
        "l2": 0.5,
        "v": jnp.ones(3),
        "name": "ridge",
    }


DOMAIN = {
    "lr": rfho.Positive(),
    "momentum": rfho.Fixed(),
    "l2": rfho.NonNegative(),
    "v": rfho.Box(0.0, 2.0),
    "name": rfho.Reals(),
}
OPTIM = optax.adam(0.02)

METHODS: dict[str, Callable[[], Any]] = {
    "reverse": rfho.ReverseHyperGradient,
    "forward": rfho.ForwardHyperGradient,
    "real time": lambda: rfho.RealTimeHyperGradient(every=2),
    "online": lambda: rfho.OnlineTruncatedHyperGradient(2, 2),
    "warm restart": lambda: rfho.WarmRestartHyperGradient(rfho.ReverseHyperGradient()),
    "persistent evolution": lambda: rfho.PersistentEvolutionHyperGradient(
        every=2, pairs=2, sigma=0.01, key=jax.random.key(3)
    ),
    "random forward": lambda: rfho.RandomForwardHyperGradient(2, jax.random.key(1)),
    "long reverse": lambda: rfho.LongReverseHyperGradient(segment=3),
}


def tune(name: str, *, steps: int = STEPS, **how: Any) -> rfho.Solution:
    """A run of one of the methods."""
    return rfho.tune(
        problem(), hyper(), method=METHODS[name](), optim=OPTIM, domain=DOMAIN, steps=steps, **how
    )


def tune_many(name: str, *, steps: int = STEPS, **how: Any) -> tuple[rfho.Solution, ...]:
    """Three starts, of which the second diverges."""
    starts = [hyper(scale) for scale in (1.0, 1e30, 0.5)]
    return rfho.tune_many(
        problem(), starts, method=METHODS[name](), optim=OPTIM, domain=DOMAIN, steps=steps, **how
    )


def digest(solution: rfho.Solution, *, concluded: bool = True) -> str:
    """Of every bit of a solution but the seconds."""
    found = hashlib.sha256(solution.result.name.encode())
    parts = [
        solution.hyper,
        solution.best,
        *(one._replace(seconds=0.0) for one in solution.history),
    ]
    for leaf in jax.tree.leaves([parts, (solution.value, solution.params) if concluded else None]):
        if not hasattr(leaf, "dtype"):
            found.update(f"{type(leaf).__name__} {leaf!r}".encode())
        else:
            array = np.asarray(leaf)
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


class Stops(rfho.Listener):
    """Raises something after a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.at, self.error = step, error

    def step(self, report: Any) -> None:
        if report.step == self.at:
            raise self.error
