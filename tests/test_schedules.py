"""Schedules: values as documented, and derivatives in every parameter under jit and scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from rfho import schedules

STEPS = 12
SCHEDULES = {
    "constant": (lambda p: schedules.constant(p["value"]), {"value": 0.2}),
    "piecewise": (
        lambda p: schedules.piecewise(p["values"], STEPS),
        {"values": [0.1, 0.3, 0.05, 0.2, 0.15]},
    ),
    "piecewise, a rate for each step": (
        lambda p: schedules.piecewise(p["values"], STEPS),
        {"values": np.linspace(0.3, 0.1, STEPS)},
    ),
    "cosine": (
        lambda p: schedules.cosine(p["peak"], STEPS, warmup=p["warmup"], end=p["end"]),
        {"peak": 0.3, "warmup": 3.4, "end": 0.02},
    ),
    "cosine without warm-up": (
        lambda p: schedules.cosine(p["peak"], STEPS, end=p["end"]),
        {"peak": 0.3, "end": 0.02},
    ),
    "exponential": (
        lambda p: schedules.exponential(p["init"], p["decay"], STEPS),
        {"init": 0.3, "decay": 0.1},
    ),
}


def _table(schedule, counts):
    return np.array([schedule(count) for count in counts])


def _parameters(name):
    return {key: jnp.asarray(value) for key, value in SCHEDULES[name][1].items()}


@functools.cache
def _trained(name):
    """Compiled: parameters of the schedule -> loss after STEPS steps of momentum."""
    build, _ = SCHEDULES[name]
    curvature = jnp.array([0.5, 1.0, 2.0])

    def run(parameters):
        optim = optax.sgd(build(parameters), momentum=0.5)

        def step(carry, _):
            w, slots = carry
            updates, slots = optim.update(curvature * w, slots, w)
            return (optax.apply_updates(w, updates), slots), None

        w = jnp.ones(3)
        (w, _), _ = jax.lax.scan(step, (w, optim.init(w)), None, length=STEPS)
        return jnp.sum(curvature * w**2)

    return jax.jit(run)


@pytest.mark.parametrize("name", SCHEDULES)
class TestDerivativeThroughTraining:
    def test_is_the_finite_difference_in_every_parameter(self, name):
        run = _trained(name)
        parameters = jax.tree.map(
            jnp.asarray, SCHEDULES[name][1], is_leaf=lambda v: not isinstance(v, dict)
        )
        gradient = jax.jit(jax.grad(run))(parameters)
        flat, unravel = ravel_pytree(parameters)
        exact, _ = ravel_pytree(gradient)
        step = 1e-6
        for i, derivative in enumerate(exact):
            nudge = step * np.eye(flat.size)[i]
            difference = (run(unravel(flat + nudge)) - run(unravel(flat - nudge))) / (2 * step)
            np.testing.assert_allclose(derivative, difference, rtol=1e-6, atol=1e-9)
            assert derivative != 0

    def test_is_the_same_forward_and_reverse(self, name):
        parameters = jax.tree.map(
            jnp.asarray, SCHEDULES[name][1], is_leaf=lambda v: not isinstance(v, dict)
        )
        forward = jax.jit(jax.jacfwd(_trained(name)))(parameters)
        reverse = jax.jit(jax.jacrev(_trained(name)))(parameters)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), forward, reverse)

    def test_values_do_not_depend_on_jit(self, name):
        build, parameters = SCHEDULES[name][0], _parameters(name)
        compiled = jax.jit(lambda p, count: build(p)(count))
        inside = np.array([compiled(parameters, count) for count in range(STEPS + 3)])
        outside = _table(build(parameters), range(STEPS + 3))
        np.testing.assert_allclose(inside, outside, rtol=1e-14)


class TestPiecewise:
    @pytest.mark.parametrize(
        ("blocks", "horizon"),
        [(1, 1), (1, 9), (2, 9), (4, 12), (5, 12), (7, 50), (49, 50), (50, 50)],
    )
    def test_divides_the_horizon_as_evenly_as_it_can(self, blocks, horizon):
        values = np.arange(1.0, blocks + 1)
        lengths = [len(block) for block in np.array_split(np.arange(horizon), blocks)]
        schedule = schedules.piecewise(values, horizon)
        inside = schedule(np.arange(50))[:horizon]
        np.testing.assert_array_equal(inside, np.repeat(values, lengths))

    def test_keeps_the_last_value_beyond_the_horizon(self):
        schedule = schedules.piecewise(jnp.array([3.0, 7.0]), 4)
        assert _table(schedule, [3, 4, 1000, 2**31 - 1]).tolist() == [7.0] * 4

    def test_counts_a_billion_steps(self):
        schedule = schedules.piecewise(jnp.arange(1000.0), 2_000_000_000)
        assert schedule(jnp.int32(1_999_999_999)) == 999.0

    @pytest.mark.parametrize("values", [0.1, np.zeros(0), np.zeros((2, 2)), np.zeros(6)])
    def test_refuses_values_that_are_no_row_or_too_many(self, values):
        with pytest.raises(ValueError, match=r"shape .* 1 <= blocks <= horizon"):
            schedules.piecewise(values, 5)


class TestCosine:
    @pytest.mark.parametrize("warmup", [0, 1, 7])
    def test_is_that_of_optax_for_a_whole_warm_up(self, warmup):
        ours = schedules.cosine(0.7, 20, warmup=warmup, end=0.1)
        theirs = optax.warmup_cosine_decay_schedule(0.0, 0.7, warmup, 20, 0.1)
        np.testing.assert_allclose(_table(ours, range(25)), _table(theirs, range(25)), atol=1e-7)

    def test_rises_to_the_peak_and_ends_at_the_end(self):
        schedule = schedules.cosine(2.0, 10, warmup=4, end=0.5)
        assert _table(schedule, [0, 2, 4, 7, 10, 11]).tolist() == [0.0, 1.0, 2.0, 1.25, 0.5, 0.5]

    def test_has_a_finite_derivative_at_no_warm_up(self):
        def total(warmup):
            return jnp.sum(jax.vmap(schedules.cosine(1.0, 10, warmup=warmup))(jnp.arange(12)))

        gradient = jax.jit(jax.grad(total))
        assert jnp.isfinite(gradient(0.0))
        assert jnp.isfinite(gradient(10.0))

    @pytest.mark.parametrize("warmup", [-1, 10, 11.5, float("nan")])
    def test_refuses_a_warm_up_outside_the_horizon(self, warmup):
        with pytest.raises(ValueError, match=r"warmup=.* horizon of 10"):
            schedules.cosine(1.0, 10, warmup=warmup)


class TestExponential:
    @given(init=st.floats(1e-3, 10.0), decay=st.floats(1e-3, 3.0))
    def test_is_init_times_decay_to_the_share_of_the_horizon(self, init, decay):
        schedule = schedules.exponential(init, decay, 8)
        expected = [init * decay ** (count / 8) for count in (0, 1, 8, 16)]
        np.testing.assert_allclose(_table(schedule, (0, 1, 8, 16)), expected, rtol=1e-13)

    @pytest.mark.parametrize("decay", [0.0, -0.5, float("nan"), float("inf")])
    def test_refuses_a_decay_that_is_not_positive(self, decay):
        with pytest.raises(ValueError, match=f"decay={decay}"):
            schedules.exponential(1.0, decay, 8)


class TestParameters:
    BUILDERS = (
        lambda p, horizon: schedules.piecewise(jnp.stack([p, p]), horizon),
        lambda p, horizon: schedules.cosine(p, horizon),
        lambda p, horizon: schedules.exponential(p, p, horizon),
    )

    @pytest.mark.parametrize("build", BUILDERS)
    def test_keep_single_precision(self, build):
        assert build(jnp.float32(0.1), 10)(jnp.int32(3)).dtype == jnp.float32

    def test_in_half_precision_count_right(self):
        schedule = schedules.cosine(jnp.bfloat16(1.0), 4000)
        np.testing.assert_allclose(schedule(2001), schedules.cosine(1.0, 4000)(2001), rtol=1e-5)

    @pytest.mark.parametrize("build", BUILDERS)
    def test_may_be_vmapped(self, build):
        rates = jnp.array([0.1, 0.5])
        many = jax.vmap(lambda p: build(p, 10)(3))(rates)
        np.testing.assert_allclose(many, [build(p, 10)(3) for p in rates], rtol=1e-15)

    @pytest.mark.parametrize("build", BUILDERS)
    def test_refuse_a_horizon_that_is_no_positive_integer(self, build):
        for horizon in (0, -3):
            with pytest.raises(ValueError, match="horizon"):
                build(jnp.array(0.1), horizon)
        for horizon in (2.5, True, "10"):
            with pytest.raises(TypeError):
                build(jnp.array(0.1), horizon)
        assert build(jnp.array(0.1), np.int64(3))(0) == pytest.approx(0.1)

    def test_refuse_arrays_where_a_scalar_is_due(self):
        array = jnp.ones(2)
        for build in (
            lambda: schedules.constant(array),
            lambda: schedules.cosine(array, 10),
            lambda: schedules.cosine(1.0, 10, end=array),
            lambda: schedules.cosine(1.0, 10, warmup=array),
            lambda: schedules.exponential(1.0, array, 10),
        ):
            with pytest.raises(ValueError, match=r"shape \(2,\), but expected a scalar"):
                build()
