"""Hypergradient descent: the rate follows the product of successive gradients (arXiv 1703.04782)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.reproduce.row import Row, digits

PAPER = "Baydin 2018, 1703.04782"
SIZE, RATE = 128, 0.001
"""The paper's batch, α_0 and β."""


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """Softmax regression with a bias."""
    scores = batch[0] @ w["w"] + w["b"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, batch[1]).mean()


def by_hand(begin: Any, batch: Any, steps: int) -> np.ndarray:
    """α_t of the paper's equations (5) and (6), in a loop of its own."""

    def step(carry: Any, t: Any) -> Any:
        w, rate, last = carry
        slope = jax.grad(loss)(w, None, batch(t))
        rate = rate + RATE * optax.tree.vdot(slope, last)
        return (jax.tree.map(lambda a, b: a - rate * b, w, slope), rate, slope), rate

    zero = jax.tree.map(jnp.zeros_like, begin)
    rates = jax.lax.scan(step, (begin, jnp.asarray(RATE), zero), jnp.arange(steps + 1))[1]
    return np.asarray(rates[1:])


def run(*, small: bool) -> list[Row]:
    """One epoch on the digits."""
    count = 640 if small else 60000
    x, y = digits("train", count)
    order = np.random.default_rng(0).permutation(count)
    x, y = jnp.asarray(x[order], float), jnp.asarray(y[order])
    test = tuple(jnp.asarray(a) for a in digits("t10k", 10000))
    begin = {"w": jnp.zeros((784, 10)), "b": jnp.zeros(10)}
    steps = count // SIZE - 1

    def batch(t: Any) -> Any:
        return tuple(jax.lax.dynamic_slice_in_dim(a, t * SIZE, SIZE) for a in (x, y))

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["rate"]), begin)
    # The step at t is judged by the loss of the next minibatch.
    judge = rfho.Fresh(lambda k: batch(k + 1))
    problem = rfho.Problem(dynamics, loss, train=batch, valid=judge, horizon=steps)
    method = rfho.RealTimeHyperGradient(every=1, discount=0.0)
    tuner = rfho.Tuner(method, optax.sgd(RATE))

    def step(state: Any, _: Any) -> Any:
        state, _ = tuner.step(problem, state)
        return state, state.hyper["rate"]

    begun = tuner.init(problem, {"rate": RATE})
    state, rates = jax.jit(lambda s: jax.lax.scan(step, s, None, length=steps))(begun)
    params = problem.dynamics.output(state.carry.pushed.state)
    fixed = rfho.train(problem, {"rate": RATE}).params
    far = float(np.max(np.abs(np.asarray(rates) / by_hand(begin, batch, steps) - 1)))
    adapted, kept = (float(loss(w, None, test)) for w in (params, fixed))
    return [
        Row(
            "MNIST, softmax regression, batches of 128, α₀ = β = 0.001, one epoch",
            "α rises at first, and SGD-HD beats SGD at α₀ (figure 2)",
            f"α ends at {float(rates[-1]):.4f}; test loss {adapted:.3f}, {kept:.3f} at α₀",
            float(rates[-1]) > RATE and adapted < kept,
        ),
        Row(
            "the same, beside the paper's update in a loop of its own",
            "equations (5), (6)",
            f"α within {far:.0e} at every one of {steps} steps",
            far < 1e-6,
        ),
    ]
