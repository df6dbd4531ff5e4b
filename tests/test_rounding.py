"""The error that rounding is said to make covers the one that it makes, against float64."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.checks import rounding
from rfho.hyper_gradients import ReverseHyperGradient

WHOLE = ReverseHyperGradient()
HALF = ReverseHyperGradient(rfho.StoreAll(encoding=rfho.memory.HalfPrecision()))
SAMPLE, ALL = range(10), range(10, 200)


def square_error(w, batch, compute):
    x, y = batch
    w, x = jax.tree.map(lambda leaf: leaf.astype(compute or leaf.dtype), (w, x))
    return jnp.mean(((jnp.tanh(x @ w["in"]) @ w["out"]).astype(y.dtype) - y) ** 2)


@functools.cache
def functions(compute):
    """Loss, objective and optimiser, the same for all cases so that they are compiled once."""

    def objective(w, hyper, batch):
        return square_error(w, batch, compute)

    def loss(w, hyper, batch):
        penalty = sum(jnp.sum(leaf**2) for leaf in w.values())
        return objective(w, hyper, batch) + hyper["l2"] * penalty

    return loss, objective, lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"])


def problem(seed, compute, dtype):
    draw = np.random.default_rng(seed)
    hyper = {"lr": draw.uniform(0.01, 0.3), "momentum": draw.uniform(0, 0.95)}
    hyper["l2"] = 10 ** draw.uniform(-4, -2)
    start = {"in": draw.normal(size=(8, 16)) * 0.4, "out": draw.normal(size=16) * 0.3}
    x = draw.normal(size=(64, 8))
    y = np.sin(x[:, 0]) + 0.3 * draw.normal(size=64)
    hyper, start, x, y = jax.tree.map(lambda a: jnp.asarray(a, dtype), (hyper, start, x, y))
    loss, objective, optim = functions(compute)
    dynamics = rfho.Descent(loss, optim, start)
    return rfho.Problem(dynamics, objective, (x[:32], y[:32]), (x[32:], y[32:]), 60), hyper


def covered(seed, compute, method):
    """Whether the error covers the true one, and whether each wrong sign is in doubt."""
    rounded, hyper = problem(seed, compute, jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rfho.HyperGradientWarning)
        found = rounding(rounded, hyper, method, finer=(problem(seed, None, jnp.float32)[0], WHOLE))
    true = rfho.hyper_gradient(*problem(seed, None, jnp.float64)).hypergradient
    gaps = [float(found.hypergradient[name]) - float(true[name]) for name in true]
    wrong = {name for name in true if found.hypergradient[name] * true[name] < 0}
    return np.linalg.norm(gaps) <= found.error and {f'hyper["{n}"]' for n in wrong} <= set(
        found.in_doubt
    )


@pytest.mark.parametrize("seeds", [SAMPLE, pytest.param(ALL, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("compute", "method"), [(jnp.bfloat16, WHOLE), (None, HALF)])
def test_the_error_covers_the_true_one_and_wrong_signs_are_in_doubt(seeds, compute, method):
    assert [seed for seed in seeds if not covered(seed, compute, method)] == []


def test_a_sign_in_doubt_is_warned_of_by_its_path():
    def sloped(slope):
        step = lambda w, hyper, batch: w + hyper["a"]  # noqa: E731
        dynamics = rfho.Dynamics(lambda hyper: jnp.zeros(()), step)
        objective = lambda w, hyper, batch: slope * w + hyper["b"]  # noqa: E731
        return rfho.Problem(dynamics, objective, horizon=1)

    hyper = {"a": 1.0, "b": 1.0}
    with pytest.warns(
        rfho.HyperGradientWarning, match=r'turned the sign .* of hyper\["a"\]: compute'
    ):
        found = rounding(sloped(-0.5), hyper, WHOLE, finer=(sloped(0.5), WHOLE))
    assert found.error == 2.0
    assert found.in_doubt == ('hyper["a"]',)
