"""SABA and SRBA: the papers' lines written out, and the noise that they leave beside SOBA's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_single_loop import (
    ETA,
    FEATURES,
    HYPER,
    RATE,
    START,
    VALID,
    X,
    Y,
    assert_close,
    cross,
    error,
    estimates,
    gradient,
    loss,
    minimiser_hypergradient,
    product,
)

import rfho
from rfho import SingleLoopHyperGradient, VarianceReducedHyperGradient
from rfho.hyper_gradients import SAGA, SARAH

ROWS, VALID_ROWS = 5, 2
TRAIN = rfho.Indexed((X, Y), np.arange(40).reshape(ROWS, 8), key=0)
VALIDATION = rfho.Indexed(VALID, np.arange(10).reshape(VALID_ROWS, 5), key=1)
PARTS = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)]
VALID_PARTS = [(VALID[0][i : i + 5], VALID[1][i : i + 5]) for i in (0, 5)]


def problem_of(optim=lambda hyper: optax.sgd(ETA), valid=VALIDATION, **options):
    dynamics = rfho.Descent(loss, optim, START)
    return rfho.Problem(dynamics, error, options.get("train", TRAIN), valid, 5)


def on_train(w, q, hyper, batch):
    """∂_wL_i, H_i q, and (∂²_λwL_i) q, in one vector."""
    by_q = cross(w, q, batch)
    parts = gradient(w, hyper, batch), product(q, hyper, batch), by_q["l2"], [by_q["shift"]]
    return np.concatenate(parts)


def on_valid(w, hyper, batch):
    """∂_wE_j, and what of ∂_λE is not zero."""
    x, y = batch
    return np.append(x.T @ (x @ w - y) / len(y), 0.2 * hyper["shift"])


def moved(w, q, train, valid):
    """The three directions, and then one step of w and of q."""
    slope, by_q, l2, shift = np.split(train, [FEATURES, 2 * FEATURES, 3 * FEATURES])
    found = {"l2": -l2, "shift": valid[-1] - shift[0]}
    return found, w - ETA * slope, q + RATE * (valid[:-1] - by_q)


def hypers(count):
    """λ moves, as in a loop."""
    return [{name: value * (1 + 0.05 * k) for name, value in HYPER.items()} for k in range(count)]


def along(method, problem, count):
    """One estimate at each of some λ."""
    carry = method.init(problem, jax.tree.map(jnp.asarray, HYPER))
    estimate = jax.jit(lambda k, hyper, carry: method.estimate(problem.at(k), hyper, carry))
    for k, hyper in enumerate(hypers(count)):
        found, carry = estimate(k, hyper, carry)
        yield found


def test_with_saga_it_is_saba():
    method = VarianceReducedHyperGradient(RATE, SAGA())
    w, q = START, np.zeros(FEATURES)
    table = np.array([on_train(w, q, HYPER, part) for part in PARTS])
    valid_table = np.array([on_valid(w, HYPER, part) for part in VALID_PARTS])
    for k, (hyper, found) in enumerate(
        zip(hypers(12), along(method, problem_of(), 12), strict=True)
    ):
        i, j = int(TRAIN.number(k)), int(VALIDATION.number(k))
        newest, valid_newest = on_train(w, q, hyper, PARTS[i]), on_valid(w, hyper, VALID_PARTS[j])
        train = newest - table[i] + table.mean(0)
        valid = valid_newest - valid_table[j] + valid_table.mean(0)
        table[i], valid_table[j] = newest, valid_newest
        expected, after, q = moved(w, q, train, valid)
        assert_close(found.hypergradient, expected)
        np.testing.assert_allclose(found.aux.params, w, atol=1e-12)
        slope = np.linalg.norm(train[:FEATURES])
        np.testing.assert_allclose(found.aux.stats["stationarity"], slope, atol=1e-12)
        w = after


def test_with_sarah_it_is_srba():
    method = VarianceReducedHyperGradient(RATE, SARAH(period=4))
    w, q, last = START, np.zeros(FEATURES), None
    for k, (hyper, found) in enumerate(
        zip(hypers(10), along(method, problem_of(), 10), strict=True)
    ):
        i, j = int(TRAIN.number(k)), int(VALIDATION.number(k))
        if k % 4 == 0:
            train = np.mean([on_train(w, q, hyper, part) for part in PARTS], axis=0)
            valid = np.mean([on_valid(w, hyper, part) for part in VALID_PARTS], axis=0)
        else:
            train = train + on_train(w, q, hyper, PARTS[i]) - on_train(*last, PARTS[i])
            valid = valid + on_valid(w, hyper, VALID_PARTS[j])
            valid = valid - on_valid(last[0], last[2], VALID_PARTS[j])
        last = w, q, hyper
        expected, w, q = moved(w, q, train, valid)
        assert_close(found.hypergradient, expected)


def gaps_at_the_end(method, count=3_000):
    """How far the last hypergradients are from that of the minimiser on all data, by its size."""
    problem, hyper = problem_of(lambda hyper: optax.sgd(0.1)), jax.tree.map(jnp.asarray, HYPER)
    exact = minimiser_hypergradient(HYPER)

    @jax.jit
    def run():
        def one(carry, k):
            found, carry = method.estimate(problem.at(k), hyper, carry)
            return carry, found.hypergradient

        return jax.lax.scan(one, method.init(problem, hyper), jnp.arange(count))[1]

    found = run()
    gaps = [np.asarray(found[n][-100:]).reshape(100, -1) - exact[n] for n in exact]
    size = np.sqrt(sum(np.sum(value**2) for value in exact.values()))
    return np.linalg.norm(np.concatenate(gaps, axis=1), axis=1) / size


@pytest.mark.parametrize("reduction", [SAGA(), SARAH(period=10)], ids=["SABA", "SRBA"])
def test_at_a_fixed_rate_the_noise_dies_away_that_stays_with_soba(reduction):
    assert np.max(gaps_at_the_end(VarianceReducedHyperGradient(0.1, reduction))) < 1e-10
    assert np.min(gaps_at_the_end(SingleLoopHyperGradient(0.1))) > 1e-3


def test_of_one_batch_nothing_is_reduced():
    whole = problem_of(train=(X, Y), valid=VALID)
    for reduction in (SAGA(), SARAH(3)):
        reduced = estimates(VarianceReducedHyperGradient(RATE, reduction), whole, 8)
        for found, plain in zip(
            reduced, estimates(SingleLoopHyperGradient(RATE), whole, 8), strict=True
        ):
            assert_close(found.hypergradient, plain.hypergradient)


def test_an_epoch_has_every_batch_once_in_an_order_of_its_own():
    epochs = [[int(TRAIN.number(t)) for t in range(e, e + ROWS)] for e in range(0, 20, ROWS)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    t = 7
    np.testing.assert_array_equal(TRAIN(t)[1], PARTS[int(TRAIN.number(t))][1])


def test_batches_without_a_number_are_refused():
    problem = problem_of(train=rfho.Stream((X, Y), 8, key=0))
    with pytest.raises(TypeError, match=r"train is a Stream.*write rfho.Indexed"):
        rfho.hyper_gradient(problem, HYPER, VarianceReducedHyperGradient(RATE))
