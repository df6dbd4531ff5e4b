"""Between hypergradient descent and real-time tuning: the tangent discounted by μ (arXiv 1910.08525)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.reproduce.row import Row, digits

PAPER = "MARTHE 2020, 1910.08525"
SIZE, WIDTH = 100, 64


def scores(w: Any, x: Any) -> Any:
    return jax.nn.relu(x @ w["in"]) @ w["out"]


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """A network with one hidden layer."""
    return optax.softmax_cross_entropy_with_integer_labels(scores(w, batch[0]), batch[1]).mean()


def rates_of(problem: Any, discount: float, steps: int) -> tuple[np.ndarray, Any]:
    """The rate at every step of one training run, and the parameters at its end."""
    method = rfho.RealTimeHyperGradient(every=1, discount=discount)
    tuner = rfho.Tuner(method, optax.sgd(1e-4), rfho.NonNegative())

    def step(state: Any, _: Any) -> Any:
        state, _ = tuner.step(problem, state)
        return state, state.hyper["rate"]

    begun = tuner.init(problem, {"rate": 0.01})
    state, rates = jax.jit(lambda s: jax.lax.scan(step, s, None, length=steps))(begun)
    return np.asarray(rates), problem.dynamics.output(state.carry.pushed.state)


def run(*, small: bool) -> list[Row]:
    """One training run for each μ, from the same start and over the same minibatches."""
    steps, discounts = (5, (0.0, 1.0)) if small else (500, (0.0, 0.9, 0.99, 1.0))
    x, y = digits("train", 12000)
    x, y = jnp.asarray(x), jnp.asarray(y)
    test = tuple(jnp.asarray(a) for a in digits("t10k", 2000 if small else 10000))
    keys = jax.random.split(jax.random.key(0), 2)
    begin = {
        "in": jax.random.normal(keys[0], (784, WIDTH), jnp.float32) / 28,
        "out": jax.random.normal(keys[1], (WIDTH, 10), jnp.float32) / 8,
    }
    train = rfho.Stream((x[:10000], y[:10000]), SIZE, key=0)
    fresh = rfho.Fresh(rfho.Stream((x[10000:], y[10000:]), SIZE, key=1))
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["rate"], momentum=0.9), begin)
    problem = rfho.Problem(dynamics, loss, train, fresh, horizon=steps)
    found = {}
    for discount in discounts:
        rates, w = rates_of(problem, discount, steps)
        value = float(loss(w, None, test))
        found[discount] = (
            value,
            float(np.max(rates)),
            float(np.std(np.diff(np.log(rates + 1e-9)))),
        )
    told = ", ".join(f"{value:.3f} (μ = {d:g})" for d, (value, _, _) in found.items())
    largest = ", ".join(f"{top:.3f}" for _, top, _ in found.values())
    between = [value for d, (value, _, _) in found.items() if 0 < d < 1] or [float("nan")]
    ends = found[0.0][0], found[1.0][0]
    return [
        Row(
            f"MNIST, 784-64-10 under momentum, the rate from 0.01, {steps} steps of 100; the paper's networks "
            "are larger and its μ adapts, here it is fixed",
            "between HD (μ = 0) and RTHO (μ = 1) lies what generalises best (tables 1, 2)",
            f"test loss {told}; largest rates {largest}",
            min(between) <= min(ends),
        )
    ]
