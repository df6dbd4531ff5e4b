"""The outer step: u = chart(λ), u ← u + update(∂unchart(u)ᵀ g), λ ← project(unchart(u))."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho

HYPER = {"lr": 0.1, "l2": 0.3}
DOMAIN = {"lr": rfho.Positive(), "l2": rfho.UnitInterval()}


def square(w, hyper, batch):
    return jnp.mean((w - batch) ** 2) + hyper["l2"] * w**2


DYNAMICS = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
PROBLEM = rfho.Problem(
    DYNAMICS, lambda w, hyper, batch: (w - batch) ** 2, jnp.ones(3), lambda k: 1.0 + k, horizon=3
)


def updated(hyper, gradient, optim, domain):
    """λ after one step along a given hypergradient: that of a linear objective."""

    def along(w, hyper, batch):
        return sum(gradient[name] * hyper[name] for name in hyper) + 0 * w

    problem = rfho.Problem(DYNAMICS, along, jnp.ones(3), horizon=1)
    tuner = rfho.Tuner(optim=optim, domain=domain)
    return tuner.step(problem, tuner.init(problem, hyper))[0].hyper


def test_without_a_domain_the_step_is_the_optimisers():
    after = updated(HYPER, {"lr": 2.0, "l2": -1.0}, optax.sgd(0.1), rfho.Reals())
    assert after["lr"] == pytest.approx(0.1 - 0.2)
    assert after["l2"] == pytest.approx(0.3 + 0.1)


def test_the_projection_comes_after_the_step():
    after = updated(HYPER, {"lr": 2.0, "l2": -30.0}, optax.sgd(0.1), rfho.UnitInterval())
    assert after == {"lr": 0.0, "l2": 1.0}


def test_a_chart_moves_in_its_own_coordinates():
    """In u = log λ the derivative is λ g, and the step multiplies."""
    after = updated(HYPER, {"lr": 2.0, "l2": -1.0}, optax.sgd(0.1), DOMAIN)
    assert after["lr"] == pytest.approx(0.1 * np.exp(-0.1 * 0.1 * 2.0))
    assert after["l2"] == pytest.approx(0.3 + 0.1)


def test_each_hyperparameter_may_have_an_optimiser_of_its_own():
    optim = optax.partition({"a": optax.sgd(1.0), "b": optax.sgd(0.01)}, {"lr": "a", "l2": "b"})
    after = updated(HYPER, {"lr": 0.1, "l2": 1.0}, optim, rfho.Reals())
    assert after["lr"] == pytest.approx(0.0)
    assert after["l2"] == pytest.approx(0.29)


def test_the_pair_is_pure_so_that_a_scan_of_it_is_the_loop():
    tuner = rfho.Tuner(optim=optax.adam(0.1), domain=DOMAIN)
    first = tuner.init(PROBLEM, HYPER)

    def step(state, _):
        state, estimate = tuner.step(PROBLEM, state)
        return state, estimate.value

    last, values = jax.jit(lambda state: jax.lax.scan(step, state, length=4))(first)
    state = first
    for k in range(4):
        state, estimate = tuner.step(PROBLEM, state)
        np.testing.assert_allclose(values[k], estimate.value, rtol=1e-13)
    assert int(last.step) == int(state.step) == 4
    for name in HYPER:
        np.testing.assert_allclose(last.hyper[name], state.hyper[name], rtol=1e-13)


def test_a_fixed_leaf_is_split_off_with_none_in_its_place():
    hyper = {"lr": 0.1, "depth": 3, "table": jnp.arange(2)}
    domain = {"lr": rfho.Reals(), "depth": rfho.Fixed(), "table": rfho.Fixed()}
    free, rest = rfho.domains.Space.of(domain, hyper).split(hyper)
    assert free == {"lr": 0.1, "depth": None, "table": None}
    whole = rest.join({"lr": "new", "depth": None, "table": None})
    assert (whole["lr"], whole["depth"], whole["table"].tolist()) == ("new", 3, [0, 1])


def test_nothing_left_to_tune_is_refused():
    with pytest.raises(ValueError, match=r"every leaf of hyper is Fixed\(\)"):
        rfho.Tuner(domain=rfho.Fixed()).init(PROBLEM, HYPER)


@pytest.mark.parametrize(
    ("hyper", "domain", "message"),
    [
        (HYPER | {"l2": 1.5}, DOMAIN, r'hyper\["l2"\] starts outside its domain UnitInterval'),
        (HYPER | {"lr": 0.0}, DOMAIN, r'hyper\["lr"\] has the entry 0\.0, but Positive\(\) moves'),
        (HYPER, {"lr": rfho.Positive()}, r'domain has no entry for hyper\["l2"\]'),
        (HYPER, {"lr": rfho.Reals(), "l2": rfho.Box(np.zeros(2), 1.0)}, r'hyper\["l2"\] has shape'),
    ],
)
def test_a_start_that_its_domain_cannot_hold_is_named(hyper, domain, message):
    with pytest.raises(ValueError, match=message):
        rfho.Tuner(domain=domain).init(PROBLEM, hyper)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "reverse"}, "must be one of rfho.hyper_gradients"),
        ({"method": rfho.hyper_gradients.ReverseHyperGradient}, "must be one of"),
        ({"optim": 0.1}, r"must be an Optax optimiser: write optax\.adam"),
    ],
)
def test_what_is_neither_method_nor_optimiser_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        rfho.Tuner(**arguments)
