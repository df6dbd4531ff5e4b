"""`rfho.grad`: a gradient inside a step that is pulled back by forward-over-reverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfho
from rfho.hyper_gradients import ForwardHyperGradient, ReverseHyperGradient

X = jax.random.normal(jax.random.key(0), (12, 3))


def loss(params, hyper, batch):
    return jnp.mean(jnp.tanh(batch @ params["w"] + params["b"]) ** 2) + hyper["l2"] * jnp.sum(
        params["w"] ** 2
    )


def problem(gradient):
    def step(params, hyper, batch):
        direction = gradient(params, hyper, batch)
        return jax.tree.map(lambda w, g: w - hyper["lr"] * g, params, direction)

    init = {"w": jnp.array([0.5, -0.3, 0.2]), "b": jnp.array(0.1)}
    dynamics = rfho.Dynamics(init=lambda hyper: init, step=step)
    objective = lambda params, hyper, batch: jnp.sum(params["w"] ** 3) + params["b"]  # noqa: E731
    return rfho.Problem(dynamics, objective, train=X, valid=None, horizon=7)


HYPER = {"lr": 0.3, "l2": 0.05}


@pytest.mark.parametrize(
    "gradient",
    [
        rfho.grad(loss),
        lambda params, hyper, batch: rfho.grad(lambda w: loss(w, hyper, batch))(params),
    ],
    ids=["arguments", "closure"],
)
@pytest.mark.parametrize("keep", list(rfho.Keep))
def test_reverse_through_grad_is_reverse_through_jax_grad(gradient, keep):
    method = ReverseHyperGradient(rfho.StoreAll(keep))
    ours = rfho.hyper_gradient(problem(gradient), HYPER, method)
    plain = rfho.hyper_gradient(problem(jax.grad(loss)), HYPER, ReverseHyperGradient())
    for name in HYPER:
        np.testing.assert_allclose(ours.hypergradient[name], plain.hypergradient[name], rtol=1e-12)


def test_forward_mode_goes_through_grad():
    forward = rfho.hyper_gradient(problem(rfho.grad(loss)), HYPER, ForwardHyperGradient())
    reverse = rfho.hyper_gradient(problem(rfho.grad(loss)), HYPER)
    for name in HYPER:
        np.testing.assert_allclose(
            forward.hypergradient[name], reverse.hypergradient[name], rtol=1e-12
        )


def test_the_way_back_needs_less_memory_than_reverse_over_reverse():
    def deep(w, hyper, batch):
        layer = lambda x, _: (jnp.tanh(x @ w), None)  # noqa: E731
        return jnp.mean(jax.lax.scan(layer, batch, None, length=20)[0] ** 2)

    def bytes_back(gradient):
        step = lambda w, hyper, batch: w - hyper["lr"] * gradient(w, hyper, batch)  # noqa: E731
        way = rfho.Dynamics(init=lambda hyper: jnp.eye(16), step=step).way(rfho.Keep.STATES)
        pull = lambda w, adjoint: way.pull_back(adjoint, w, (), {"lr": 0.1}, jnp.ones((64, 16)))  # noqa: E731
        compiled = jax.jit(pull).lower(jnp.eye(16), jnp.eye(16)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_back(rfho.grad(deep)) < 0.8 * bytes_back(jax.grad(deep))


@pytest.mark.parametrize("has_aux", [False, True])
def test_value_and_aux_are_those_of_jax_grad(has_aux):
    def with_aux(params, hyper, batch):
        value = loss(params, hyper, batch)
        return (value, {"value": value, "count": 3}) if has_aux else value

    arguments = {"w": jnp.ones(3), "b": jnp.array(0.1)}, HYPER, X
    found = rfho.grad(with_aux, has_aux=has_aux)(*arguments)
    expected = jax.grad(with_aux, has_aux=has_aux)(*arguments)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
