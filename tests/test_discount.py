"""The discount of the tangent: from hypergradient descent to real-time hyperparameter optimisation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import ForwardHyperGradient, RealTimeHyperGradient

HYPER = {"lr": jnp.asarray(0.1), "l2": jnp.asarray(0.3)}


def square(w, hyper, batch):
    return jnp.mean((w - batch) ** 2) + jnp.sum(jnp.sin(w))


def penalised(w, hyper, batch):
    return square(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2)


DYNAMICS = rfho.Descent(penalised, lambda hyper: optax.sgd(hyper["lr"]), jnp.linspace(-1, 1, 3))
PROBLEM = rfho.Problem(DYNAMICS, square, jnp.ones(3), jnp.linspace(0, 2, 3), horizon=6)


def first_estimates(method, count):
    step = jax.jit(lambda carry: method.estimate(PROBLEM, HYPER, carry))
    carry, found = method.init(PROBLEM, HYPER), []
    for _ in range(count):
        estimate, carry = step(carry)
        found.append(estimate.hypergradient)
    return found


@pytest.mark.parametrize("discount", [0.0, 0.4, 1.0])
def test_the_tangent_fades_as_stated(discount):
    found = first_estimates(RealTimeHyperGradient(every=2, discount=discount), 3)
    state = DYNAMICS.init(HYPER)
    tangent = {name: jnp.zeros(3) for name in HYPER}

    def after(w, hyper):
        return DYNAMICS.step(state._replace(params=w), hyper, jnp.ones(3)).params

    for t in range(1, 7):
        a, b = jax.jacfwd(after, argnums=(0, 1))(state.params, HYPER)
        tangent = {name: discount * a @ z + b[name] for name, z in tangent.items()}
        state = state._replace(params=after(state.params, HYPER))
        if t % 2 == 0:
            by_w = jax.grad(square)(state.params, HYPER, PROBLEM.valid)
            for name, z in tangent.items():
                np.testing.assert_allclose(found[t // 2 - 1][name], by_w @ z, rtol=1e-12)


def test_nothing_remembered_is_hypergradient_descent():
    found = first_estimates(RealTimeHyperGradient(every=1, discount=0.0), 3)
    w = DYNAMICS.init(HYPER).params
    for estimate in found:
        step = jax.grad(penalised)(w, HYPER, jnp.ones(3))
        w = w - HYPER["lr"] * step
        by_w = jax.grad(square)(w, HYPER, PROBLEM.valid)
        np.testing.assert_allclose(estimate["lr"], -by_w @ step, rtol=1e-12)


def test_nothing_forgotten_over_the_horizon_is_forward_mode():
    expected = rfho.hyper_gradient(PROBLEM, HYPER, ForwardHyperGradient())
    (found,) = first_estimates(RealTimeHyperGradient(every=6), 1)
    for name in HYPER:
        np.testing.assert_allclose(found[name], expected.hypergradient[name], rtol=1e-12)


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_a_discount_is_between_0_and_1(discount):
    with pytest.raises(ValueError, match="discount"):
        RealTimeHyperGradient(every=1, discount=discount)
