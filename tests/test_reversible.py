"""Reversible training: what was undone is what was there, to the bit or within a stated error."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfho
from rfho.dynamics import exact_momentum
from rfho.dynamics import integers as fixed_point
from rfho.hyper_gradients import ForwardHyperGradient, ReverseHyperGradient, ReversibleHyperGradient

D = fixed_point.DENOMINATOR
MOMENTA = (0.5, 0.9, 0.98)


# The product in integers


@jax.jit
def there_and_back(number, head, n):
    product = fixed_point.multiply(number, head, n)
    return product, fixed_point.divide(product.number, product.head, n)


def words(integer):
    high, low = divmod(integer % 2**64, 2**32)
    return fixed_point.Words(jnp.uint32(high), jnp.uint32(low))


def whole(words, signed):
    integer = int(words.high) * 2**32 + int(words.low)
    return integer - 2**64 if signed and integer >= 2**63 else integer


@given(
    v=st.integers(-(2**61), 2**61),
    i=st.integers(0, 2**46),
    n=st.integers(fixed_point.LEAST_NUMERATOR, D),
)
def test_a_product_is_right_to_one_unit_and_can_be_undone(v, i, n):
    product, (number, head) = there_and_back(words(v), words(i), jnp.uint32(n))
    u = i % n
    assert whole(product.number, signed=True) == (v * n + u) // D
    assert whole(product.head, signed=False) == i // n * D + (v * n + u) % D
    assert (whole(number, signed=True), whole(head, signed=False)) == (v, i)


@given(i=st.integers(0, 2**64 - 1))
def test_16_bits_leave_the_head_and_come_back(i):
    head = words(i)
    rest, word = fixed_point.without_lowest(head), fixed_point.lowest(head)
    assert (whole(rest, signed=False), int(word)) == divmod(i, 2**16)
    assert whole(fixed_point.with_lowest(rest, word), signed=False) == i


@given(x=st.floats(-6e4, 6e4), y=st.floats(-6e4, 6e4))
def test_a_sum_is_rounded_to_the_last_place_and_can_be_undone(x, y):
    number = fixed_point.add(fixed_point.zeros(()), jnp.asarray(x), 44)
    total = fixed_point.add(number, jnp.asarray(y), 44)
    there = fixed_point.decoded(total, 44, jnp.dtype(jnp.float64))
    # Half a unit for each of the two roundings to float64.
    assert abs(float(there) - (x + y)) <= 2.0**-43 + 2.0**-52 * abs(x + y)
    back = fixed_point.subtract(total, jnp.asarray(y), 44)
    assert (int(back.high), int(back.low)) == (int(number.high), int(number.low))


@pytest.mark.parametrize("real", [1e6, -1e6, np.inf, np.nan])
def test_what_left_its_range_is_nan_for_good(real):
    number = fixed_point.add(fixed_point.zeros(()), jnp.asarray(real), 44)
    n = jnp.uint32(fixed_point.LEAST_NUMERATOR)
    number = fixed_point.multiply(number, fixed_point.zeros(()), n).number
    number = fixed_point.subtract(number, jnp.asarray(1.0), 44)
    assert np.isnan(fixed_point.decoded(number, 44, jnp.dtype(jnp.float64)))


# The dynamics


def quartic(w, hyper, batch):
    return jnp.mean((w["a"] - batch) ** 2) + hyper["l2"] * jnp.sum(w["a"] ** 4) * w["b"] ** 2


def start(hyper):
    return {"a": hyper["scale"] * jnp.arange(1.0, 4.0) / 3, "b": jnp.ones(())}


def coefficients():
    return {
        "rate": lambda hyper, t: {"a": hyper["lr"] * hyper["decay"] ** t, "b": hyper["lr"] / 2},
        "momentum": lambda hyper, t: hyper["momentum"],
        "init": start,
    }


def problem_of(dynamics, horizon):
    rng = np.random.default_rng(0)
    train = rfho.Stream(jnp.asarray(rng.normal(size=(12, 3))), size=4, key=0)
    return rfho.Problem(dynamics, quartic, train, jnp.ones((2, 3)), horizon)


HYPER = {"lr": 0.05, "decay": 0.999, "momentum": 0.9, "l2": 0.1, "scale": 1.0}
FLOAT = rfho.HeavyBall(quartic, **coefficients())
EXACT = rfho.ReversibleDescent(quartic, **coefficients())


@jax.jit
def round_trip(hyper):
    """All states of 10,000 steps, and all states on the way back."""
    problem, state = problem_of(EXACT, 10_000), EXACT.init(hyper)
    plan = EXACT.plan(state.params, hyper, problem.horizon)

    def forward(digits, row):
        t, turn = row
        spilled = exact_momentum.words_at_risk(digits, state.params)
        batch = problem.train_batch(t)
        after = EXACT.take(digits, hyper, batch, t=t, turn=turn, like=state.params)
        return after, (digits, spilled)

    def backward(digits, row):
        t, turn, spilled = row
        batch = problem.train_batch(t)
        before, _ = EXACT.undo(
            digits, hyper, batch, t=t, turn=turn, tape=spilled, like=state.params
        )
        return before, before

    rows = jnp.arange(problem.horizon), plan.turns
    last, (there, spilled) = jax.lax.scan(forward, state.digits, rows)
    _, back = jax.lax.scan(backward, last, (*rows, spilled), reverse=True)
    return there, back, plan.bits


@pytest.mark.parametrize("momentum", MOMENTA)
def test_10_000_steps_come_back_to_the_bit(momentum):
    there, back, bits = round_trip(HYPER | {"momentum": momentum})
    for one, other in zip(jax.tree.leaves(there), jax.tree.leaves(back), strict=True):
        assert np.array_equal(one, other)
    assert len(np.unique(there.velocity["a"].low)) > 10_000  # and they did move
    # 31 bits fill the empty head; then every step puts in log2(1/momentum).
    lost = math.log2(1 / momentum)
    assert float(bits["a"]) / 10_000 == pytest.approx(lost + 31 / 10_000, abs=1e-3)


def test_the_float_dynamics_are_those_of_sgd_with_momentum():
    optim = optax.sgd(HYPER["lr"], momentum=HYPER["momentum"])
    sgd = rfho.Descent(quartic, lambda hyper: optim, start)
    ball = rfho.HeavyBall(
        quartic, lambda hyper, t: hyper["lr"], coefficients()["momentum"], init=start
    )

    @jax.jit
    def after_20_steps(hyper):
        step = lambda t, states: tuple(  # noqa: E731
            problem_of(each, 1).step(state, hyper, t)
            for each, state in zip((sgd, ball), states, strict=True)
        )
        return jax.lax.fori_loop(0, 20, step, (sgd.init(hyper), ball.init(hyper)))

    expected, found = after_20_steps(HYPER)
    for name in ("a", "b"):
        np.testing.assert_allclose(found.params[name], expected.params[name], rtol=1e-12)


# Horizon and methods are the same in what follows, so that each program is compiled once.
T = 300
BACKWARDS = ReversibleHyperGradient(0.8)


def close(found, expected, rtol):
    for name in HYPER:  # rate, its schedule, momentum, loss and initial parameters
        np.testing.assert_allclose(
            found.hypergradient[name], expected.hypergradient[name], rtol=rtol, err_msg=name
        )


def test_the_reversible_hypergradient_is_that_of_the_float_dynamics_within_resolution():
    expected = rfho.hyper_gradient(problem_of(FLOAT, T), HYPER)
    found = rfho.hyper_gradient(problem_of(EXACT, T), HYPER, BACKWARDS)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-9)
    close(found, expected, rtol=1e-7)
    assert float(found.aux.stats["returned"]) == 1


@pytest.mark.parametrize("method", [ReverseHyperGradient(), ForwardHyperGradient()])
def test_every_method_sees_the_same_derivatives(method):
    expected = rfho.hyper_gradient(problem_of(EXACT, T), HYPER, BACKWARDS)
    close(rfho.hyper_gradient(problem_of(EXACT, T), HYPER, method), expected, rtol=1e-9)


def test_it_needs_no_64_bit_types():
    expected = rfho.hyper_gradient(problem_of(EXACT, T), HYPER, BACKWARDS)
    with jax.enable_x64(False):
        estimate = rfho.hyper_gradient(problem_of(EXACT, T), HYPER, BACKWARDS)
        assert estimate.aux.params["a"].dtype == jnp.float32
        assert float(estimate.aux.stats["returned"]) == 1
        close(estimate, expected, rtol=1e-3)


def test_many_tasks_are_undone_side_by_side():
    data = jnp.arange(18.0).reshape(2, 3, 3) / 18, jnp.ones((2, 1, 3))
    many = rfho.over_tasks(problem_of(EXACT, T), data)
    close(rfho.hyper_gradient(many, HYPER, BACKWARDS), rfho.hyper_gradient(many, HYPER), rtol=1e-9)


def test_its_memory_hardly_grows_with_the_horizon():
    def small(w, hyper, batch):
        return jnp.sum((w - batch) ** 2)

    dynamics = rfho.ReversibleDescent(
        small, lambda hyper, t: hyper, lambda hyper, t: 0.5, init=jnp.zeros(1000)
    )

    def memory(horizon):
        problem = rfho.Problem(dynamics, small, jnp.ones(1000), jnp.ones(1000), horizon)
        estimate = lambda h: ReversibleHyperGradient(0.5).estimate(problem, h, None)[0]  # noqa: E731
        compiled = jax.jit(estimate).lower(0.1).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    per_step = (memory(2000) - memory(1000)) / 1000
    assert per_step < 1000 / 8 + 32  # one bit for each of 1000 parameters, and what a plan takes


# What can go wrong


def test_a_run_that_does_not_fit_is_not_begun():
    message = r"loses 1\.\d+: choose a least_momentum below"
    with pytest.raises(rfho.HyperGradientError, match=message):
        rfho.hyper_gradient(problem_of(EXACT, T), HYPER | {"momentum": 0.45}, BACKWARDS)


def test_a_gradient_that_is_another_one_on_the_way_back_is_an_error():
    calls = itertools.count(1)

    def unsteady(hyper, t):
        rate = jax.ShapeDtypeStruct((), jnp.float64)
        return hyper + jax.pure_callback(lambda t: np.float64(1e-3 * next(calls)), rate, t)

    dynamics = rfho.ReversibleDescent(
        lambda w, hyper, batch: w**2, unsteady, lambda hyper, t: 0.5, init=jnp.ones(())
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, None, None, horizon=20)
    with pytest.raises(rfho.HyperGradientError, match="did not end at the initial state"):
        rfho.hyper_gradient(problem, 0.01, ReversibleHyperGradient(0.4))


def test_a_number_beyond_the_range_is_nan_rather_than_wrong():
    dynamics = rfho.ReversibleDescent(
        lambda w, hyper, batch: w**2,
        lambda hyper, t: hyper,
        lambda hyper, t: 0.5,
        init=jnp.asarray(1.0),
        fraction_bits=56,
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, None, None, horizon=40)
    estimate, _ = jax.jit(lambda h: ReversibleHyperGradient().estimate(problem, h, None))(3.0)
    assert np.isnan(estimate.value)
    assert np.isnan(estimate.hypergradient)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="fraction_bits=60"):
        rfho.ReversibleDescent(quartic, **coefficients(), fraction_bits=60)
    with pytest.raises(ValueError, match=r"least_momentum=0\.0"):
        ReversibleHyperGradient(0.0)
    with pytest.raises(TypeError, match="rate"):
        rfho.HeavyBall(quartic, 0.1, 0.9, init=start)
    with pytest.raises(TypeError, match=r"only a rfho\.ReversibleDescent runs backwards"):
        rfho.hyper_gradient(problem_of(FLOAT, 3), HYPER, ReversibleHyperGradient())
    each = rfho.ReversibleDescent(
        quartic, coefficients()["rate"], lambda hyper, t: {"a": jnp.ones(3), "b": 0.9}, init=start
    )
    with pytest.raises(ValueError, match=r'momentum\["a"\] has shape \(3,\)'):
        jax.eval_shape(lambda h: each.step(each.init(h), h, jnp.ones((1, 3))), HYPER)
    short = rfho.HeavyBall(
        quartic, lambda hyper, t: {"a": 0.1}, coefficients()["momentum"], init=start
    )
    with pytest.raises(ValueError, match="rate has structure"):
        jax.eval_shape(lambda h: short.step(short.init(h), h, jnp.ones((1, 3))), HYPER)


# In floats, from anchors


@pytest.mark.parametrize("every", [7, 100])
def test_anchored_is_stored_whatever_the_distance_of_anchors(every):
    expected = rfho.hyper_gradient(problem_of(FLOAT, T), HYPER)
    method = ReverseHyperGradient(rfho.Anchored(every))
    close(rfho.hyper_gradient(problem_of(FLOAT, T), HYPER, method), expected, rtol=1e-9)


def test_by_default_anchors_are_as_far_apart_as_single_precision_allows():
    single = lambda leaf: jnp.asarray(leaf, jnp.float32)  # noqa: E731
    data = rfho.Indexed(jnp.ones((4, 3), jnp.float32), jnp.zeros((40, 2), jnp.int32))
    problem = rfho.Problem(FLOAT, quartic, data, jnp.ones((2, 3), jnp.float32), horizon=40)
    problem = eqx.tree_at(
        lambda p: p.dynamics._init, problem, lambda h: jax.tree.map(single, start(h))
    )
    hyper = jax.tree.map(single, HYPER)
    expected = rfho.hyper_gradient(problem, hyper)
    assert expected.aux.params["a"].dtype == jnp.float32
    close(
        rfho.hyper_gradient(problem, hyper, ReverseHyperGradient(rfho.Anchored())), expected, 1e-4
    )


def test_anchors_too_far_apart_give_nan_rather_than_a_wrong_hypergradient():
    method = ReverseHyperGradient(rfho.Anchored(100))
    hyper = HYPER | {"momentum": 0.2}
    estimate = rfho.hyper_gradient(problem_of(FLOAT, T), hyper, method, throw=False)
    assert all(np.isnan(leaf) for leaf in jax.tree.leaves(estimate.hypergradient))


@jax.jit
def undoing_error(steps, hyper):
    """The relative error of a state from which ``steps`` steps were undone."""
    batch, invert = jnp.ones((1, 3)), FLOAT.way(rfho.Keep.STATES).invert
    step = lambda i, state: FLOAT.step(state, hyper, batch)  # noqa: E731
    then = jax.lax.fori_loop(0, 50, step, FLOAT.init(hyper))
    now = jax.lax.fori_loop(0, steps, step, then)
    back = jax.lax.fori_loop(0, steps, lambda i, state: invert(state, hyper, batch)[0], now)
    error = jax.tree.map(jnp.subtract, back[:2], then[:2])
    return optax.tree.norm(error) / optax.tree.norm(then[:2])


@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_error_of_undoing_is_below_its_estimate(momentum):
    for steps in (5, 20, 40):
        measured = float(undoing_error(steps, HYPER | {"momentum": momentum}))
        assert measured <= 3 * rfho.dynamics.reversal_error(momentum, steps, jnp.float64)


@given(momentum=st.floats(0.05, 1), digits=st.floats(1, 6))
def test_as_many_steps_are_undone_as_the_tolerance_allows(momentum, digits):
    tolerance = 10**-digits
    steps = rfho.dynamics.steps_undone_within(tolerance, momentum)
    assert steps == 1 or rfho.dynamics.reversal_error(momentum, steps) <= tolerance * (1 + 1e-6)
    if rfho.dynamics.reversal_error(momentum, 1) <= tolerance and steps < 10**6:
        assert rfho.dynamics.reversal_error(momentum, steps + 1) > tolerance * (1 - 1e-6)


def test_anchored_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="every=0"):
        rfho.Anchored(0)
    with pytest.raises(ValueError, match=r"momentum=1\.5"):
        rfho.Anchored(momentum=1.5)
    with pytest.raises(ValueError, match=r"tolerance=0\.0"):
        rfho.Anchored(tolerance=0.0)
    sgd = rfho.Descent(quartic, lambda hyper: optax.sgd(hyper["lr"]), start)
    with pytest.raises(TypeError, match="Anchored undoes steps"):
        rfho.hyper_gradient(
            problem_of(sgd, 3),
            {name: HYPER[name] for name in ("lr", "l2", "scale")},
            ReverseHyperGradient(rfho.Anchored()),
        )
