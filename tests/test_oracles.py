"""The same numbers as other programs, to the accuracy of those programs.

`oracles/README.md` says where the numbers come from. Every row of every file is compared with what
reverse mode and what forward mode say; rows of truncated sweeps with truncated sweeps. Rows of
implicit differentiation belong to the tests of that method.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import rfho
from rfho.dynamics.initial import Given
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    OnlineTruncatedHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)

A1, B1, C1, D = (
    "a1_sigmoid",
    "b1_mlp_momentum_fullbatch",
    "c1_mlp_adam_rfho_eps_inside",
    "d_quadratic",
)
METHODS = {"reverse": ReverseHyperGradient(), "forward": ForwardHyperGradient(chunk=50)}
INPUTS = {
    *("A", "b", "c", "w0", "T", "lam", "lr", "fd_idx", "W0", "b0", "W1", "b1", "W2", "b2"),
    *("hyper_lr", "hyper_mu", "hyper_rho", "hyper_beta1", "hyper_beta2", "hyper_eps"),
}


@functools.cache
def oracle(name):
    with np.load(Path(__file__).parent / "oracles" / f"{name}.npz") as file:
        return {row: np.asarray(file[row]) for row in file.files}


def rows(name):
    """What is to be compared: no inputs, and nothing implicit."""
    return [row for row in oracle(name) if row not in INPUTS and "implicit" not in row]


def agree(name, row, ours):
    theirs = np.asarray(oracle(name)[row], np.float64)
    relative = 2e-6 if "f32" in row or row.startswith("rfho") else 1e-8
    # Their fixed steps, 1e-5 and for the 500 weights 1e-4, are not short for everything, and the
    # rounding of 1 - beta2^t is large.
    relative = {"fd_lr": 2e-8, "fd_lam": 5e-8, "fd_beta2": 5e-8}.get(row, relative)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())


@functools.cache
def digits():
    """Training and validation examples, with one-hot targets."""
    x, y = load_digits(return_X_y=True)
    x, y = jnp.asarray(x[:1000]) / 16, jax.nn.one_hot(y[:1000], 10, dtype=jnp.float64)
    assert float(16 * x[:500].sum()) == 157720
    assert float(16 * x[500:].sum()) == 156614
    return (x[:500], y[:500]), (x[500:], y[500:])


def softmax_regression(w, batch):
    return optax.softmax_cross_entropy(batch[0] @ w["W"] + w["b"], batch[1])


def network(w, batch):
    z = jnp.tanh(batch[0] @ w["W1"] + w["b1"]) @ w["W2"] + w["b2"]
    return optax.softmax_cross_entropy(z, batch[1]).mean()


def penalised(w, hyper, batch):
    return network(w, batch) + 0.5 * hyper["rho"] * (jnp.sum(w["W1"] ** 2) + jnp.sum(w["W2"] ** 2))


@functools.cache
def example_weights(method):
    given, (train, valid) = oracle(A1), digits()
    dynamics = rfho.Descent(
        lambda w, hyper, batch: jnp.mean(
            jax.nn.sigmoid(hyper["lam"]) * softmax_regression(w, batch)
        ),
        lambda hyper: optax.sgd(hyper["lr"]),
        {"W": given["W0"], "b": given["b0"]},
    )
    problem = rfho.Problem(
        dynamics,
        lambda w, hyper, batch: softmax_regression(w, batch).mean(),
        train,
        valid,
        int(given["T"]),
    )
    hyper = {"lam": given["lam"], "lr": given["lr"]}
    return rfho.hyper_gradient(problem, hyper, METHODS[method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", rows(A1))
def test_a_weight_for_each_example_and_the_rate(row, method):
    value, gradient, aux = example_weights(method)
    if "val_error" in row:
        ours = value
    elif "final" in row:
        ours = aux.params[row.split("_")[2]]
    elif row == "fd_lam":
        ours = gradient["lam"][oracle(A1)["fd_idx"]]
    else:
        ours = gradient[row.split("_")[-1]]
    agree(A1, row, ours)


def network_problem(name, optim):
    given, (train, valid) = oracle(name), digits()
    init = {leaf: given[leaf] for leaf in ("W1", "b1", "W2", "b2")}
    dynamics = rfho.Descent(penalised, optim, init)
    problem = rfho.Problem(
        dynamics, lambda w, hyper, batch: network(w, batch), train, valid, int(given["T"])
    )
    hyper = {row.removeprefix("hyper_"): given[row] for row in given if row.startswith("hyper_")}
    return problem, hyper


def of_network(row, estimate):
    """What a row of the networks' files speaks of."""
    if "val_error" in row:
        return estimate.value
    quantity = row.split("_")[-1]
    return estimate.aux.params[quantity] if "final" in row else estimate.hypergradient[quantity]


@functools.cache
def heavy_ball(method):
    problem, hyper = network_problem(B1, lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["mu"]))
    return rfho.hyper_gradient(problem, hyper, METHODS[method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", rows(B1))
def test_a_network_under_heavy_ball(row, method):
    agree(B1, row, of_network(row, heavy_ball(method)))


def original_adam(hyper):
    """The Adam of the original package: lr sqrt(1 - b2^t) / (1 - b1^t) m / sqrt(v + eps)."""
    first, second = hyper["beta1"], hyper["beta2"]

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros, jnp.zeros((), jnp.int32)

    def update(gradient, slots, params=None):
        m, v, t = slots
        m = jax.tree.map(lambda m, g: first * m + (1 - first) * g, m, gradient)
        v = jax.tree.map(lambda v, g: second * v + (1 - second) * g**2, v, gradient)
        t = t + 1
        rate = hyper["lr"] * jnp.sqrt(1 - second**t) / (1 - first**t)
        updates = jax.tree.map(lambda m, v: -rate * m / jnp.sqrt(v + hyper["eps"]), m, v)
        return updates, (m, v, t)

    return optax.GradientTransformation(init, update)


@functools.cache
def adam(method):
    return rfho.hyper_gradient(*network_problem(C1, original_adam), METHODS[method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", [row for row in rows(C1) if row != "fd_beta2"])
def test_a_network_under_the_adam_of_the_original_package(row, method):
    agree(C1, row, of_network(row, adam(method)))


def test_a_fixed_step_of_1e_5_is_too_long_for_beta2():
    """Differences with their step give their number, and both miss the derivative by 7e-7 of it."""
    problem, hyper = network_problem(C1, original_adam)

    def error_at(beta2):
        return rfho.hyper_gradient(problem, hyper | {"beta2": beta2}).value

    beta2 = hyper["beta2"]
    by_differences = (error_at(beta2 + 1e-5) - error_at(beta2 - 1e-5)) / 2e-5
    agree(C1, "fd_beta2", by_differences)
    assert adam("reverse").hypergradient["beta2"] == pytest.approx(float(by_differences), rel=1e-6)


def inner(w, hyper, batch):
    a, b, _ = batch
    return 0.5 * w @ a @ w - b @ w + 0.5 * jnp.sum(hyper["lam"] * w**2)


def distance(w, hyper, batch):
    return 0.5 * jnp.sum((w - batch[2]) ** 2)


def quadratic(init, objective=distance):
    given = oracle(D)
    data = given["A"], given["b"], given["c"]
    dynamics = rfho.Descent(inner, lambda hyper: optax.sgd(hyper["lr"]), init)
    return rfho.Problem(dynamics, objective, data, data, int(given["T"]))


@functools.cache
def plain_quadratic(method):
    """The plain problem; with the initial parameters learned, it is the same in the other leaves."""
    return quadratic_estimate(quadratic(lambda hyper: hyper["theta"]), METHODS[method])


@functools.cache
def squared_init(method):
    return quadratic_estimate(quadratic(lambda hyper: hyper["theta"] ** 2), METHODS[method])


@functools.cache
def explicit(method):
    def objective(w, hyper, batch):
        return distance(w, hyper, batch) + 0.5 * jnp.sum(hyper["lam"] ** 2)

    return quadratic_estimate(quadratic(lambda hyper: hyper["theta"], objective), METHODS[method])


@functools.cache
def truncated(window):
    return quadratic_estimate(quadratic(oracle(D)["w0"]), TruncatedHyperGradient(window))


def quadratic_estimate(problem, method):
    given = oracle(D)
    hyper = {"lam": given["lam"], "lr": given["lr"]}
    learned = not isinstance(problem.dynamics._init, Given)
    hyper |= {"theta": given["w0"]} if learned else {}
    return rfho.hyper_gradient(problem, hyper, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", [row for row in rows(D) if "K" not in row and "online" not in row])
def test_a_quadratic_with_learned_start_and_explicit_dependence(row, method):
    estimate = (
        squared_init if "squared" in row else explicit if "explicit" in row else plain_quadratic
    )
    value, gradient, aux = estimate(method)
    if "val_error" in row:
        ours = value
    elif "final" in row:
        ours = aux.params
    else:
        leaf = row.split("_")[-1]
        ours = gradient["lam" if leaf == "lam" else "lr" if leaf == "lr" else "theta"]
    agree(D, row, ours)


@pytest.mark.parametrize("row", [row for row in rows(D) if "truncated" in row])
def test_sweeps_over_the_last_steps_alone(row):
    window, leaf = row.split("_K")[1].split("_")
    agree(D, row, truncated(int(window)).hypergradient[leaf])


def test_the_online_block_of_the_predecessor_leaves_out_its_first_step():
    horizon = int(oracle(D)["T"])
    problem = quadratic(oracle(D)["w0"])
    block = quadratic_estimate(problem, OnlineTruncatedHyperGradient(horizon - 1, horizon))
    whole = quadratic_estimate(problem, OnlineTruncatedHyperGradient(horizon, horizon))
    for leaf in ("lam", "lr"):
        agree(D, f"far_online_block1_f64_{leaf}", block.hypergradient[leaf])
        agree(D, f"fd_{leaf}", whole.hypergradient[leaf])
