"""Forecasts of memory are what the compiler takes, on models of every kind; forecasts of time hold roughly."""

import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from losses import LOSSES, array, network

import rfho
from rfho._programs.trees import as_code
from rfho.choice import Parts, Rates
from rfho.hyper_gradients import ForwardHyperGradient, ReverseHyperGradient

HORIZON = 12
HYPER = {"lr": jnp.asarray(0.01, jnp.float32), "l2": jnp.asarray(0.01, jnp.float32)}


def problem_of(w, x, function, horizon=HORIZON):
    def loss(w, hyper, x):
        penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))
        return jnp.mean(function(w, x)) + hyper["l2"] * penalty

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"], momentum=0.9), w)
    objective = lambda w, hyper, x: jnp.mean(function(w, x))  # noqa: E731
    return rfho.Problem(dynamics, objective, x, x, horizon)


def compiled(problem, method):
    """The program of an estimate, as users compile it."""
    arrays, rest = eqx.partition((problem, HYPER), eqx.is_array)

    def program(arrays):
        problem, hyper = eqx.combine(arrays, rest)
        return method.estimate(problem, hyper, method.init(problem, hyper))[0]

    return jax.jit(program).lower(arrays).compile(), arrays


SHORT = ["sort", "cholesky"]
"""Two kinds of workspace; the others take two minutes to compile."""


def each(names, short):
    soak = lambda name: () if name in short else pytest.mark.soak  # noqa: E731
    return [pytest.param(name, marks=soak(name)) for name in names]


@pytest.mark.parametrize("name", each(LOSSES, SHORT))
def test_memory_is_forecast_within_a_quarter_whatever_the_model(name):
    problem = problem_of(*LOSSES[name])
    parts = Parts(problem, HYPER, Rates())
    for method in (ReverseHyperGradient(), ForwardHyperGradient()):
        program, _ = compiled(problem, method)
        taken = program.memory_analysis().temp_size_in_bytes
        assert 0.75 * taken <= method.cost(parts).memory <= 1.25 * taken, as_code(method)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(rfho.StoreAll(rfho.Keep.STATES), marks=pytest.mark.soak),
        rfho.StoreAll(rfho.Keep.RESIDUALS),
        rfho.Recompute(),
        pytest.param(rfho.Replay(), marks=pytest.mark.soak),
        pytest.param(rfho.Binomial(3), marks=pytest.mark.soak),
    ],
    ids=as_code,
)
@pytest.mark.parametrize(
    "name", each(["sort", "cholesky", "convolution", "wide network"], ["sort"])
)
def test_one_question_serves_all_policies(name, policy):
    problem = problem_of(*LOSSES[name])
    method = ReverseHyperGradient(policy)
    taken = compiled(problem, method)[0].memory_analysis().temp_size_in_bytes
    assert 0.75 * taken <= method.cost(Parts(problem, HYPER, Rates())).memory <= 1.25 * taken


@pytest.mark.slow
def test_times_are_forecast_within_a_half():
    """In plain training runs: medians of CPU seconds, all in turn."""
    w = [array(200, 200, scale=0.05), array(200, 10, scale=0.05)]
    problem = problem_of(w, array(100, 200), network, horizon=40)
    methods = [
        ReverseHyperGradient(),
        ReverseHyperGradient(rfho.Recompute()),
        ForwardHyperGradient(),
    ]
    parts = Parts(problem, HYPER, Rates())
    trained = jax.jit(lambda hyper: rfho.train(problem, hyper)).lower(HYPER).compile()
    programs = [lambda: trained(HYPER), *(_to_run(problem, method) for method in methods)]
    rounds = [[_seconds(program) for program in programs] for _ in range(5)]
    base, *taken = (statistics.median(column) for column in zip(*rounds, strict=True))
    for method, seconds in zip(methods, taken, strict=True):
        assert 0.5 < method.cost(parts).time / (seconds / base) < 1.5, as_code(method)


def _to_run(problem, method):
    program, arrays = compiled(problem, method)
    return lambda: program(arrays)


def _seconds(program):
    begin = time.process_time()
    for _ in range(5):
        jax.block_until_ready(program())
    return time.process_time() - begin
