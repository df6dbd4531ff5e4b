"""`precision=` of a method: where it is used, the error that the estimate then carries, and what is refused."""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_rounding import problem

import rfho
from rfho._programs import trees as tree
from rfho.checks import Kind
from rfho.checks.diagnosis.symptoms import Seen, symptoms
from rfho.choice import Parts, Rates
from rfho.hyper_gradients import LongReverseHyperGradient, Precision, ReverseHyperGradient

HALF, WIDE = jnp.bfloat16, jnp.float64
MIXED = Precision(compute=HALF, tape=HALF)
EACH = {
    "all": Precision(compute=HALF, tape=HALF, derivative=WIDE),
    "products": Precision(compute=HALF),
    "tape": Precision(tape=HALF),
    "way back in 16 bits": Precision(compute=HALF, derivative=HALF),
    "way back in 64 bits": Precision(derivative=WIDE),
}
SAMPLE, REST = range(20), range(20, 200)
soaked = pytest.mark.soak
COVERED = [
    ("all", SAMPLE),
    *(pytest.param(name, SAMPLE, marks=soaked) for name in EACH if name != "all"),
    *(pytest.param(name, REST, marks=soaked) for name in EACH),
]


def in_float64(moment, hyper):
    is_single = lambda leaf: getattr(leaf, "dtype", None) == jnp.float32  # noqa: E731
    return jax.tree.map(
        lambda leaf: leaf.astype(WIDE) if is_single(leaf) else leaf, (moment, hyper)
    )


def covered(seed, method):
    """Whether the error covers the true one, and no more signs are wrong than in doubt."""
    asked = problem(seed, None, jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = rfho.hyper_gradient(*asked, method)
    true = rfho.hyper_gradient(*in_float64(*asked)).hypergradient
    gaps = [float(found.hypergradient[name]) - float(true[name]) for name in true]
    wrong = sum(bool(found.hypergradient[name] * true[name] < 0) for name in true)
    return np.linalg.norm(gaps) <= found.error and wrong <= found.aux.stats["signs_in_doubt"]


@pytest.mark.parametrize(("name", "seeds"), COVERED)
def test_the_error_of_the_estimate_covers_the_true_one(name, seeds):
    method = ReverseHyperGradient(precision=EACH[name])
    assert [seed for seed in seeds if not covered(seed, method)] == []


def small(target=None):
    loss = lambda w, hyper, batch: jnp.sum((jnp.sin(w) - hyper["aim"]) ** 2)  # noqa: E731
    start = jnp.full(3, 1 / 3, jnp.float32)
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), start)
    objective = lambda w, hyper, batch: jnp.sum((w - batch) ** 2)  # noqa: E731
    valid = jnp.zeros_like(start) if target is None else target
    hyper = {"aim": jnp.float32(0.9), "lr": jnp.float32(0.1)}
    return rfho.Problem(dynamics, objective, valid=valid, horizon=6), hyper


@functools.cache
def found(**precision):
    method = ReverseHyperGradient(precision=Precision(**precision) if precision else None)
    return rfho.hyper_gradient(*small(), method, throw=False)


def told_apart(w, hyper, batch):
    """A loss that knows whether its parameters are rounded, and then has another minimum."""
    shift = 0.5 if w.dtype == HALF else 0.0
    return jnp.sum((w - hyper["aim"] + shift) ** 2) * jnp.mean(jnp.cos(w))


@pytest.mark.parametrize("derivative", [WIDE, HALF])
def test_steps_are_those_of_the_rounded_loss_and_derivatives_those_of_the_other(derivative):
    asked, hyper = small()
    dynamics = rfho.Descent(told_apart, lambda h: optax.sgd(h["lr"]), jnp.ones(3, jnp.float32))
    precision = Precision(compute=HALF, derivative=derivative)
    method = ReverseHyperGradient(precision=precision)
    found = rfho.hyper_gradient(asked.under(dynamics), hyper, method, throw=False)
    rounded = jax.jit(lambda w: jax.grad(told_apart)(w.astype(HALF), hyper, None).astype(w.dtype))
    wide = jax.tree.map(lambda leaf: leaf.astype(WIDE), hyper)
    at = jnp.float64 if derivative is WIDE else HALF

    def step(w, aim):
        loss = lambda w: told_apart(w.astype(at), {"aim": aim}, None)  # noqa: E731
        return w - wide["lr"] * jax.grad(loss)(w)

    pulled = jax.jit(lambda w, adjoint: jax.vjp(step, w, wide["aim"])[1](adjoint))
    states = [jnp.ones(3, jnp.float32)]
    for _ in range(asked.horizon):
        states.append(states[-1] - hyper["lr"] * rounded(states[-1]))
    np.testing.assert_allclose(found.aux.params, states[-1], rtol=1e-2)
    assert found.aux.params.dtype == found.hypergradient["aim"].dtype == jnp.float32
    adjoint, total = 2 * states.pop().astype(WIDE), 0.0
    for state in reversed(states):
        adjoint, by_aim = pulled(state.astype(WIDE), adjoint)
        total += float(by_aim)
    assert float(found.hypergradient["aim"]) == pytest.approx(total, rel=2e-2)


def test_segments_find_what_one_sweep_finds():
    whole, heard = found(compute=HALF, derivative=WIDE), []
    method = LongReverseHyperGradient(
        3,
        precision=Precision(compute=HALF, derivative=WIDE),
        on_segment=lambda done, of: heard.append(of),
    )
    long = rfho.hyper_gradient(*small(), method)
    for name, one in whole.hypergradient.items():
        assert float(long.hypergradient[name]) == pytest.approx(float(one), rel=1e-6)
    assert float(long.error) == pytest.approx(float(whole.error), rel=1e-3)
    assert len(heard) == 4  # of the estimate alone


def test_what_is_measured_against_rounds_nowhere():
    """Though loss and objectives cast to the dtype of their batch, and training starts from λ."""

    def square(w, hyper, batch):
        return jnp.sum(((jnp.sin(w) - hyper["aim"]).astype(batch.dtype) - batch) ** 2)

    target = jnp.asarray([0.1, 0.7, 0.3], jnp.float32)
    start = lambda hyper: jnp.full(3, hyper["aim"] / 3)  # noqa: E731
    dynamics = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), start)
    objective = {"aim": square, "lr": rfho.Objective(square, target / 3)}
    asked = rfho.Problem(dynamics, objective, target, target / 7, horizon=4), small()[1]
    exact = rfho.hyper_gradient(*in_float64(*asked)).hypergradient
    found = rfho.hyper_gradient(*asked, ReverseHyperGradient(precision=EACH["way back in 64 bits"]))
    gaps = [float(found.hypergradient[name]) - float(exact[name]) for name in exact]
    assert float(found.error) == pytest.approx(2 * np.linalg.norm(gaps), rel=1e-4)


@pytest.mark.soak
def test_a_probe_of_all_steps_is_the_whole():
    whole, same, half = (found(compute=HALF, **probe) for probe in ({}, {"probe": 6}, {"probe": 3}))
    assert whole.error == same.error != half.error


def test_a_sign_in_doubt_is_warned_of():
    """The objective lies between where training comes to as it is rounded, and where without."""
    between = (found(compute=HALF, derivative=WIDE).aux.params + found().aux.params) / 2
    method = ReverseHyperGradient(precision=Precision(compute=HALF, derivative=WIDE))
    with pytest.warns(UserWarning, match="turned the sign of 2 of the 2 entries"):
        rfho.hyper_gradient(*small(between), method)


def test_an_outer_loop_finds_a_sign_in_doubt():
    seen = Seen(1.0, {"lr": np.ones(2)}, {"signs_in_doubt": 1.0})
    (finding,) = symptoms((seen,), None, 7)
    assert finding.kind is Kind.LOW_PRECISION
    assert finding.message.startswith("at outer step 7 rounding may have turned the sign of 1 of")


def test_the_tape_of_an_outer_loop_is_in_16_bits():
    asked, hyper = small()
    kept = [
        tree.nbytes(ReverseHyperGradient(precision=precision).reserve(asked, hyper))
        for precision in (None, Precision(tape=HALF))
    ]
    # Seven states of three numbers, and six gradients.
    assert kept == [4 * 3 * (7 + 6), 3 * (4 * 7 + 2 * 6)]


def test_a_forecast_counts_the_measurement():
    parts, method = Parts(*small(), Rates()), ReverseHyperGradient()
    measured = dataclasses.replace(method, precision=MIXED)
    assert measured.cost(parts).time > 1.9 * method.cost(parts).time


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_precision_is_refused():
    with pytest.raises(TypeError, match=r"ReverseHyperGradient.* got precision=16, .*Precision"):
        ReverseHyperGradient(precision=16)
    with pytest.raises(ValueError, match="Precision got no dtype"):
        Precision()
    with pytest.raises(ValueError, match="derivative=float16, but it must be bfloat16 or float32"):
        Precision(derivative=jnp.float16)
    with pytest.raises(ValueError, match=r"in bfloat16 with Binomial\(2\).*take StoreAll"):
        ReverseHyperGradient(rfho.Binomial(2), precision=MIXED)


def test_dynamics_without_a_loss_are_refused_by_name():
    moving = rfho.Dynamics(lambda hyper: jnp.ones(()), lambda s, hyper, batch: hyper * s)
    asked = rfho.Problem(moving, lambda w, hyper, batch: w, horizon=2)
    with pytest.raises(TypeError, match="precision= got Dynamics, but it can cast"):
        rfho.hyper_gradient(asked, 0.5, ReverseHyperGradient(precision=MIXED))


def test_residuals_of_another_precision_are_refused():
    residuals = ReverseHyperGradient(rfho.StoreAll(rfho.Keep.RESIDUALS), precision=MIXED)
    with pytest.raises(ValueError, match="keeps residuals"):
        rfho.hyper_gradient(*small(), residuals)


def test_a_derivative_in_64_bits_has_to_be_allowed():
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        rfho.hyper_gradient(*small(), ReverseHyperGradient(precision=Precision(derivative=WIDE)))
