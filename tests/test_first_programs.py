"""A run of any method compiles three programs: what it begins with, an outer step, and what it ends with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sampled import sampled
from zoo import ZOO

import rfho
from benchmarks.compilations import compilations

MOST = 3
ABOVE = {
    # One step, one segment and one read-out at a time, each of which is a place to stop at.
    "long reverse": 8,
    "warm long reverse": 8,
    # Asks the compiler for the memory of those among which it chooses.
    "automatic": 11,
}
START = jnp.asarray(np.linspace(0.5, -1.0, 3))


def loss(w, hyper, batch):
    return jnp.sum((w - batch) ** 2) / 2 + hyper["penalty"] * jnp.sum(w**2) / 2


def objective(w, hyper, batch):
    return jnp.sum((w - batch) ** 2)


def problem_of(kind):
    if kind.reversible:
        dynamics = rfho.ReversibleDescent(
            loss, lambda hyper, t: 0.2, lambda hyper, t: 0.5, init=START
        )
    else:
        dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.4), START)
    return rfho.Problem(dynamics, objective, START + 1, START + 0.8, horizon=4)


OPTIM = optax.adam(0.02)


@pytest.mark.parametrize("name", sampled(ZOO, every=2))
def test_a_first_run_compiles_three_programs_and_a_second_none(name):
    jax.clear_caches()
    kind = ZOO[name]
    problem = problem_of(kind)
    run = lambda: rfho.tune(problem, {"penalty": 0.3}, method=kind.method, optim=OPTIM, steps=2)  # noqa: E731
    with compilations() as first:
        run()
    assert 2 < len(first) <= ABOVE.get(name, MOST), first
    with compilations() as second:
        run()
    assert second == []


def test_training_alone_compiles_one():
    jax.clear_caches()
    problem = problem_of(ZOO["reverse"])
    with compilations() as names:
        rfho.train(problem, {"penalty": 0.3})
    assert len(names) == 1
