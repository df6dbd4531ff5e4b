"""On random problems the truth lies within the error that each method states, and the error is no wide guess.

Logistic regressions with a penalty for each of four features, whose sizes differ tenfold, and a rate drawn beside
them: some trainings arrive, some do not. The truth is exact in double precision, of the run or of the minimiser; in
the 80 bits of long doubles where double precision itself is on trial.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import Precision

FEATURES, EXAMPLES, HORIZON = 4, 20, 60
MOST = 0.001
"""Of all problems so few may lie outside."""
MOMENTUM = 0.53


def logistic(w, hyper, batch):
    x, y = batch
    return jnp.mean(jax.nn.softplus(-y * (x @ w)))


def loss(w, hyper, batch):
    x, y = batch
    shifted = jnp.mean(jax.nn.softplus(-y * (x @ w + hyper["shift"])))
    return shifted + 0.5 * jnp.sum(jnp.exp(hyper["l2"]) * w**2)


def descent(rate, init):
    return rfho.Descent(loss, lambda hyper: optax.sgd(rate), init)


def reversible(rate, init):
    return rfho.ReversibleDescent(loss, lambda hyper, t: rate, lambda hyper, t: MOMENTUM, init=init)


def heavy_ball(rate, init):
    return rfho.HeavyBall(loss, lambda hyper, t: rate, lambda hyper, t: MOMENTUM, init=init)


def numbers(key):
    """Both sides, λ and the rate of a random problem, in single precision."""
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
    return rounded((*sides, hyper, rate))


def drawn(key, dtype, dynamics=descent):
    """A random problem and its λ."""
    cast = lambda data: jax.tree.map(lambda leaf: leaf.astype(dtype), data)  # noqa: E731
    train, valid, hyper, rate = cast(numbers(key))
    trained = dynamics(rate, jnp.zeros(FEATURES, dtype))
    return rfho.Problem(trained, logistic, train, valid, HORIZON), hyper


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


def in_long_doubles(keys):
    """∇f of the run by tangents written by hand, of all problems at once, with (l2, shift) as one vector."""
    cast = lambda leaf: np.asarray(leaf, np.longdouble)  # noqa: E731
    (x, y), (vx, vy), hyper, rate = jax.tree.map(cast, jax.vmap(numbers)(keys))
    shift, weights, rate = hyper["shift"][:, None], np.exp(hyper["l2"]), rate[:, None]
    w, z = np.zeros_like(weights), np.zeros((len(keys), FEATURES, FEATURES + 1), np.longdouble)
    of = lambda x, w: np.einsum("pef,pf->pe", x, w)  # noqa: E731
    back = lambda x, r: np.einsum("pef,pe...->pf...", x, r) / EXAMPLES  # noqa: E731
    for _ in range(HORIZON):
        p = 1 / (1 + np.exp(y * (of(x, w) + shift)))
        along = np.einsum("pef,pfm->pem", x, z)
        along[..., -1] += 1  # of the shift
        slope_along = back(x, (p * (1 - p))[..., None] * along) + weights[..., None] * z
        slope_along[:, np.arange(FEATURES), np.arange(FEATURES)] += weights * w
        w = w - rate * (weights * w - back(x, y * p))
        z = z - rate[..., None] * slope_along
    p = 1 / (1 + np.exp(vy * of(vx, w)))
    found = np.einsum("pf,pfm->pm", -back(vx, vy * p), z)
    return {"l2": found[:, :-1], "shift": found[:, -1]}


class Row(NamedTuple):
    """A method, what it aims at, and what is asked of its interval.

    Attributes:
        widest: how many times the error the interval may be in the median.
        times: how many stated errors make the interval; ``most``, the share of truths that may lie outside.
        slack: what is not looked at: the rounding of methods whose error is far larger.
    """

    method: Any
    truth: Any
    widest: float = 10.0
    dtype: Any = jnp.float64
    times: float = 1.0
    most: float = MOST
    slack: float = 1e-12
    dynamics: tuple[Any, Any] = (descent, descent)


POLICIES = {
    "storing": rfho.StoreAll(),
    "recomputing": rfho.Recompute(5),
    "binomial": rfho.Binomial(4),
    "replaying": rfho.Replay(),
}
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
    "reverse, single": Row(rfho.ReverseHyperGradient(), of_the_run, 200.0, jnp.float32),
    "forward, single": Row(rfho.ForwardHyperGradient(), of_the_run, 500.0, jnp.float32),
    "reversible, single": Row(
        rfho.ReversibleHyperGradient(),
        of_the_run,
        500.0,
        jnp.float32,
        dynamics=(reversible, heavy_ball),
    ),
    "reversible": Row(
        rfho.ReversibleHyperGradient(), of_the_run, 1e5, slack=0, dynamics=(reversible, heavy_ball)
    ),
    "reverse, half": Row(
        rfho.ReverseHyperGradient(precision=Precision(compute=jnp.bfloat16)),
        of_the_run,
        dtype=jnp.float32,
    ),
    **{
        f"reverse, {name}": Row(rfho.ReverseHyperGradient(policy), in_long_doubles, 500.0, slack=0)
        for name, policy in POLICIES.items()
    },
    "forward": Row(rfho.ForwardHyperGradient(), in_long_doubles, 500.0, slack=0),
    "all directions": Row(
        rfho.RandomForwardHyperGradient(FEATURES + 1, key=0), in_long_doubles, 2000.0, slack=0
    ),
    **{
        f"{b} random directions": Row(
            rfho.RandomForwardHyperGradient(b, key=0), of_the_run, times=3.0, most=most
        )
        for b, most in ((1, 0.15), (2, 0.06), (4, 0.04))
    },
    **{
        f"{kind.__name__} of {pairs}": Row(
            kind(pairs, 0.01, every=HORIZON, key=0), of_the_run, times=3.0, most=most
        )
        for kind in (rfho.PersistentEvolutionHyperGradient, rfho.SingleEvolutionHyperGradient)
        for pairs, most in ((2, 0.11), (10, 0.008), (50, 0.001))
    },
}
SHORT = ("truncated, by its bias", "one step")


@eqx.filter_jit
def measured(row, keys):
    """ĝ, ‖ĝ - ∇f‖ and what was said of it; the second is NaN where the truth is not JAX's to find."""

    def one(key):
        problem, hyper = drawn(key, row.dtype, row.dynamics[0])
        moment, method = problem.at(0), row.method
        if hasattr(method, "key"):
            method = eqx.tree_at(lambda method: method.key, method, key)
        estimate, _ = method.estimate(moment, hyper, method.init(moment, hyper))
        if row.truth is in_long_doubles:
            return estimate.hypergradient, jnp.nan, estimate.error
        truth = row.truth(*drawn(key, jnp.float64, row.dynamics[1]))
        gaps = jax.tree.map(jnp.subtract, estimate.hypergradient, truth)
        return estimate.hypergradient, optax.tree.norm(gaps), estimate.error

    return jax.vmap(one)(keys)


def gaps_and_errors(row, keys):
    """‖ĝ - ∇f‖ of each problem, and what was said of it."""
    found, gap, said = measured(row, keys)
    if row.truth is in_long_doubles:
        gaps = jax.tree.map(lambda one, truth: np.asarray(one) - truth, found, row.truth(keys))
        gap = np.hypot(
            np.linalg.norm(gaps["l2"].astype(float), axis=1), gaps["shift"].astype(float)
        )
    return np.asarray(gap), np.asarray(said)


def check(name, count, seed):
    outside, width, row = told(name, count, seed)
    assert outside <= row.most * count
    assert width <= row.widest


def told(name, count, seed):
    """How many truths lie outside, and the median interval by the error."""
    row, chunk = ROWS[name], min(count, 1000)
    keys = jax.random.split(jax.random.key(seed), count)
    parts = [gaps_and_errors(row, keys[i : i + chunk]) for i in range(0, count, chunk)]
    gap, said = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert np.isfinite(gap).all()
    interval = row.times * said
    outside, wrong = gap > interval + row.slack, gap > row.slack
    return np.count_nonzero(outside), np.median(interval[wrong] / gap[wrong]), row


@pytest.mark.parametrize("name", SHORT)
def test_the_truth_lies_within_the_error_that_is_stated(name):
    check(name, 200, seed=0)


@pytest.mark.soak
@pytest.mark.parametrize("name", ROWS)
def test_the_truth_lies_within_it_999_times_in_1000(name):
    check(name, 10_000, seed=1)
