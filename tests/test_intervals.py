"""On random problems the truth lies within the error that each method states, and the error is no wide guess.

Logistic regressions with a penalty for each of four features, whose sizes differ tenfold, and a rate drawn beside
them: some trainings arrive, some do not. The truth is exact in double precision, of the run or of the minimiser.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho

FEATURES, EXAMPLES, HORIZON = 4, 20, 60
MOST = 0.001
"""Of all problems so few may lie outside."""


def logistic(w, hyper, batch):
    x, y = batch
    return jnp.mean(jax.nn.softplus(-y * (x @ w)))


def loss(w, hyper, batch):
    x, y = batch
    shifted = jnp.mean(jax.nn.softplus(-y * (x @ w + hyper["shift"])))
    return shifted + 0.5 * jnp.sum(jnp.exp(hyper["l2"]) * w**2)


def drawn(key, dtype):
    """A random problem and its λ; in single precision the same, rounded."""
    keys = jax.random.split(key, 9)
    normal = lambda i, *shape: jax.random.normal(keys[i], shape)  # noqa: E731
    scale = 10 ** jax.random.uniform(keys[0], (FEATURES,), minval=-0.7, maxval=0.3)
    x, unseen = (normal(i, EXAMPLES, FEATURES) * scale for i in (1, 2))
    truth = normal(3, FEATURES) / scale
    sides = [(x, jnp.sign(x @ truth + 0.5 * normal(i, EXAMPLES))) for x, i in ((x, 4), (unseen, 5))]
    hyper = {"l2": jax.random.uniform(keys[6], (FEATURES,), minval=-4.0, maxval=0.0)}
    hyper["shift"] = 0.3 * normal(7)
    largest = jnp.linalg.norm(x.T @ x / EXAMPLES, 2) / 4 + jnp.max(jnp.exp(hyper["l2"]))
    rate = jax.random.uniform(keys[8], minval=0.4, maxval=1.0) / largest
    rounded = lambda data: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), data)  # noqa: E731
    cast = lambda data: jax.tree.map(lambda leaf: leaf.astype(dtype), rounded(data))  # noqa: E731
    train, valid, hyper, rate = cast((*sides, hyper, rate))
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(rate), jnp.zeros(FEATURES, dtype))
    return rfho.Problem(dynamics, logistic, train, valid, HORIZON), hyper


def of_the_run(problem, hyper):
    return rfho.ReverseHyperGradient().estimate(problem.at(0), hyper, None)[0].hypergradient


def of_the_minimiser(problem, hyper):
    """By Newton's method from where descent ends, and a dense solve."""
    inner = lambda w, hyper: loss(w, hyper, problem.train)  # noqa: E731
    outer = lambda w, hyper: logistic(w, hyper, problem.valid)  # noqa: E731
    slope, hessian = jax.grad(inner), jax.hessian(inner)
    step = lambda _, state: problem.dynamics.step(state, hyper, problem.train)  # noqa: E731
    w = jax.lax.fori_loop(0, 500, step, problem.dynamics.init(hyper)).params
    newton = lambda _, w: w - jnp.linalg.solve(hessian(w, hyper), slope(w, hyper))  # noqa: E731
    w = jax.lax.fori_loop(0, 8, newton, w)
    q = jnp.linalg.solve(hessian(w, hyper), jax.grad(outer)(w, hyper))
    (cross,) = jax.vjp(lambda hyper: slope(w, hyper), hyper)[1](q)
    return jax.tree.map(jnp.subtract, jax.grad(outer, argnums=1)(w, hyper), cross)


class Row(NamedTuple):
    """A method, what it aims at, in which precision, and how many times its error its interval may be."""

    method: Any
    truth: Any
    widest: float = 10.0
    dtype: Any = jnp.float64


ROWS = {
    "truncated": Row(rfho.TruncatedHyperGradient(10), of_the_run),
    "truncated late": Row(rfho.TruncatedHyperGradient(30), of_the_run),
    "truncated, by its bias": Row(rfho.TruncatedHyperGradient("auto"), of_the_run),
    "one step": Row(rfho.OneStepHyperGradient(HORIZON), of_the_minimiser, 13.0),
    "first order": Row(rfho.FirstOrderHyperGradient(10.0, every=HORIZON), of_the_minimiser, 15.0),
    "first order, settled": Row(
        rfho.FirstOrderHyperGradient(10.0, every=10 * HORIZON), of_the_minimiser, 15.0
    ),
    "implicit": Row(rfho.ImplicitHyperGradient(), of_the_minimiser),
    "implicit, single": Row(rfho.ImplicitHyperGradient(), of_the_minimiser, dtype=jnp.float32),
    "reverse, single": Row(
        rfho.ReverseHyperGradient(), of_the_run, widest=200.0, dtype=jnp.float32
    ),
}
SHORT = ("truncated, by its bias", "one step")


@eqx.filter_jit
def measured(row, keys):
    """‖ĝ - ∇f‖ and what was said of it."""

    def one(key):
        problem, hyper = drawn(key, row.dtype)
        moment = problem.at(0)
        carry = row.method.init(moment, hyper)
        estimate, _ = row.method.estimate(moment, hyper, carry)
        truth = row.truth(*drawn(key, jnp.float64))
        gaps = jax.tree.map(jnp.subtract, estimate.hypergradient, truth)
        return optax.tree.norm(gaps), estimate.error

    return jax.vmap(one)(keys)


def check(name, count, seed):
    inside, width, row = told(name, count, seed)
    assert np.count_nonzero(~inside) <= MOST * count
    assert width <= row.widest


def told(name, count, seed):
    """Which truths lie inside, and the median width by the error."""
    row, chunk = ROWS[name], min(count, 1000)
    keys = jax.random.split(jax.random.key(seed), count)
    parts = [measured(row, keys[i : i + chunk]) for i in range(0, count, chunk)]
    gap, said = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert np.isfinite(gap).all()
    inside, wrong = gap <= said + 1e-12, gap > 1e-12
    return inside, np.median(said[wrong] / gap[wrong]), row


@pytest.mark.parametrize("name", SHORT)
def test_the_truth_lies_within_the_error_that_is_stated(name):
    check(name, 200, seed=0)


@pytest.mark.soak
@pytest.mark.parametrize("name", ROWS)
def test_the_truth_lies_within_it_999_times_in_1000(name):
    check(name, 10_000, seed=1)
