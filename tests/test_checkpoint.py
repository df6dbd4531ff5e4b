"""Memory policies: the same hypergradient from fewer states, and no more repeated steps than needed."""

import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampled import sampled

import rfho
from rfho.hyper_gradients import ReverseHyperGradient
from rfho.memory.binomial import repetitions, schedule, steps_again

# --- The binomial schedule, without running anything ---------------------------------------------------


class Replayed:
    """What happens when a schedule is followed: steps run, and states held."""

    def __init__(self, steps, slots):
        moves = schedule(steps, slots)
        held, self.runs, self.most, self.order = {0: 0}, np.zeros(steps, int), 1, []
        for t, source, first, last, at in zip(*moves.rows, strict=True):
            here = held[source]
            for start, length, slot in zip(
                *(column[first:last] for column in moves.table), strict=True
            ):
                assert here == start
                self.runs[here : here + length] += 1
                here += length
                held[slot] = here
                self.most = max(self.most, slot + 1)
            assert here == at <= t
            self.runs[here:t] += 1
            self.order.append(t)


@functools.cache
def fewest_runs(steps, slots):
    """The least number of steps to run again, by dynamic programming over where to store next."""
    if steps == 1:
        return 0
    if slots == 1:
        return steps * (steps - 1) // 2
    return min(
        first + fewest_runs(steps - first, slots - 1) + fewest_runs(first, slots)
        for first in range(1, steps)
    )


@pytest.mark.parametrize("slots", range(1, 8))
def test_no_schedule_repeats_fewer_steps(slots):
    for steps in range(1, 41):
        assert Replayed(steps, slots).runs.sum() == fewest_runs(steps, slots)


@given(steps=st.integers(1, 600), slots=st.integers(1, 40))
def test_repeated_steps_follow_the_closed_form(steps, slots):
    """Griewank and Walther: r T - C(s + r, r - 1), with the least r for which C(s + r, r) >= T."""
    r = repetitions(steps, slots)
    replayed = Replayed(steps, slots)
    assert math.comb(slots + r, r) >= steps
    assert r == 0 or math.comb(slots + r - 1, r - 1) < steps
    assert replayed.runs.sum() == r * steps - (math.comb(slots + r, r - 1) if r else 0)
    assert replayed.runs.max() <= r


@given(steps=st.integers(1, 600), slots=st.integers(1, 40))
def test_a_schedule_pulls_back_every_step_once_and_holds_no_more_than_it_may(steps, slots):
    replayed = Replayed(steps, slots)
    assert replayed.order == list(reversed(range(steps)))
    assert replayed.most <= slots


# --- Policies on a run ---------------------------------------------------------------------------------

POLICIES = {
    "states": rfho.StoreAll(rfho.Keep.STATES),
    "gradients": rfho.StoreAll(rfho.Keep.GRADIENTS),
    "residuals": rfho.StoreAll(rfho.Keep.RESIDUALS),
    "least memory": rfho.Recompute(),
    "segments of 1": rfho.Recompute(1),
    "segments of 4, states": rfho.Recompute(4, rfho.Keep.STATES),
    "segment longer than the run": rfho.Recompute(50),
    "1 slot": rfho.Binomial(1),
    "3 slots": rfho.Binomial(3),
    "more slots than steps": rfho.Binomial(12),
    "replayed": rfho.Replay(),
    "replayed in segments of 4": rfho.Replay(4),
    "all in host memory": rfho.StoreAll(encoding=rfho.memory.HostMemory()),
    "segments in host memory": rfho.Recompute(encoding=rfho.memory.HostMemory()),
    "slots in host memory": rfho.Binomial(3, encoding=rfho.memory.HostMemory()),
    "replayed from host memory": rfho.Replay(encoding=rfho.memory.HostMemory()),
}


def loss(w, hyper, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ w) - y) ** 2) + hyper["l2"] * jnp.sum(w**2)


@functools.cache
def problem_of(horizon):
    x = np.random.default_rng(0).normal(size=(12, 3))
    data = x, np.sin(x[:, 0])
    # Momentum for a slot, a schedule for an integer in the state.
    dynamics = rfho.Descent(
        loss,
        lambda hyper: optax.sgd(lambda count: hyper["lr"] / (1 + count), momentum=0.5),
        init=x[0],
    )
    train = rfho.Indexed(data, np.arange(24).reshape(6, 4) % 12)
    return rfho.Problem(dynamics, loss, train, data, horizon)


HYPER = {"lr": jnp.asarray(0.3), "l2": jnp.asarray(0.05)}


@functools.cache
def estimate(policy, horizon):
    method = ReverseHyperGradient(POLICIES[policy])
    return jax.device_get(rfho.hyper_gradient(problem_of(horizon), HYPER, method))


@pytest.mark.parametrize("horizon", sampled([1, 2, 10], never=[2]))
@pytest.mark.parametrize("policy", list(POLICIES)[1:])
def test_the_policy_does_not_change_the_result(policy, horizon):
    """To a few roundings: programs of different shape are compiled to different arithmetic."""
    expected, found = estimate("states", horizon), estimate(policy, horizon)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-14)
    np.testing.assert_allclose(found.aux.params, expected.aux.params, rtol=1e-14)
    for name, derivative in expected.hypergradient.items():
        np.testing.assert_allclose(found.hypergradient[name], derivative, rtol=1e-12)


def test_the_tape_of_a_policy_holds_what_the_policy_says():
    def rows(policy, horizon=10):
        tape = ReverseHyperGradient(POLICIES[policy]).reserve(problem_of(horizon), HYPER)
        return {leaf.shape[0] for leaf in jax.tree.leaves(tape)}

    # Of T steps the states before and after each: T + 1.
    assert rows("states") == {11}
    assert rows("gradients") == {10, 11}
    assert rows("1 slot") == {1}
    assert rows("3 slots") == {3}
    assert rows("least memory") == {3, 4}
    assert rows("segments of 4, states") == {2, 5}


@pytest.mark.parametrize("policy", ["states", "gradients", "residuals"])
def test_the_default_segments_need_the_least_memory(policy):
    keep = rfho.Keep[policy.upper()]

    def nbytes(segment):
        tape = ReverseHyperGradient(rfho.Recompute(segment, keep)).reserve(problem_of(100), HYPER)
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tape))

    least = min(nbytes(segment) for segment in range(2, 21, 2))
    assert nbytes(None) <= 1.1 * least


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("number", [0, -1, True, 2.0, "all"])
@pytest.mark.parametrize("policy", [rfho.Recompute, rfho.Binomial])
def test_numbers_of_steps_and_states_must_be_positive_ints(policy, number):
    with pytest.raises(
        ValueError, match=rf"{policy.__name__} got \w+={number!r}, but it must be an int"
    ):
        policy(number)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 17, 100, 333])
@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 20])
def test_the_steps_of_the_binomial_schedule_are_those_of_its_closed_form(steps, slots):
    rows, table = schedule(steps, slots)
    assert steps_again(steps, slots) == table.length.sum() + (rows.t - rows.start).sum()


def test_ten_million_steps_are_forecast_at_once():
    begin = time.perf_counter()
    assert steps_again(10**7, 1) == 10**7 * (10**7 - 1) // 2
    assert time.perf_counter() - begin < 1


# --- The tape in host memory ---------------------------------------------------------------------------


ON_HOST = [name for name in POLICIES if "host memory" in name]


@pytest.mark.parametrize("policy", ON_HOST)
def test_a_tape_that_is_reserved_in_host_memory_lies_there(policy):
    tape = ReverseHyperGradient(POLICIES[policy]).reserve(problem_of(10), HYPER)
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tape)} == {"pinned_host"}


def test_on_an_accelerator_every_row_of_the_tape_is_sent_to_the_host():
    """Compiled for a GPU as far as that goes without one."""
    state = 7  # parameters and momentum of this size, of which no other array is made
    dynamics = rfho.Descent(
        lambda w, hyper, batch: jnp.sum((w - 1) ** 4),
        lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"]),
        init=jnp.zeros(state),
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w**2), None, None, 5)

    def lowered(encoding):
        method = ReverseHyperGradient(rfho.StoreAll(encoding=encoding))
        step = jax.jit(lambda hyper: method.estimate(problem, hyper, None)[0].hypergradient)
        hyper = {"lr": jnp.asarray(0.1), "momentum": jnp.asarray(0.5)}
        return step.trace(hyper).lower(lowering_platforms=("cuda",)).as_text().splitlines()

    def sent(lines):
        return [line for line in lines if 'placement = "pinned_host"' in line]

    assert sent(lowered(rfho.memory.Exact())) == []
    lines = sent(lowered(rfho.memory.HostMemory()))
    tapes = [line for line in lines if "tensor<6x7xf64>" in line or "tensor<5x7xf64>" in line]
    rows = [line for line in lines if "tensor<7xf64>" in line]
    assert len(tapes) == 3, "parameters, momentum and gradients"
    assert len(rows) >= 3


def test_tune_takes_a_tape_in_host_memory():
    def tuned(policy):
        method = ReverseHyperGradient(POLICIES[policy])
        return rfho.tune(problem_of(10), HYPER, method=method, optim=optax.sgd(0.01), steps=2).hyper

    for name, expected in tuned("gradients").items():
        np.testing.assert_allclose(tuned("all in host memory")[name], expected, rtol=1e-12)


def test_half_precision_is_the_same_in_host_memory():
    def found(encoding):
        method = ReverseHyperGradient(rfho.StoreAll(encoding=encoding))
        return rfho.hyper_gradient(problem_of(10), HYPER, method).hypergradient

    rounded = rfho.memory.HalfPrecision()
    for name, expected in found(rounded).items():
        np.testing.assert_allclose(
            found(rfho.memory.HostMemory(rounded))[name], expected, rtol=1e-12
        )
    assert found(rounded)["lr"] != found(rfho.memory.Exact())["lr"]
