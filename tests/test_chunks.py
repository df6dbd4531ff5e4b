"""A mean over chunks is the mean, in value and derivatives, in the memory of one chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho

X = jnp.asarray(np.random.default_rng(0).normal(size=(24, 5)))
W = jnp.linspace(-1.0, 1.0, 5)


def misfit(w, hyper, batch):
    return jnp.mean(jnp.tanh(batch @ w - hyper["offset"]) ** 2)


def problem(objective):
    dynamics = rfho.Descent(
        misfit, lambda hyper: optax.sgd(hyper["lr"]), init=lambda hyper: hyper["start"]
    )
    return rfho.Problem(dynamics, objective, X[:8], X, horizon=3)


HYPER = {"lr": jnp.asarray(0.3), "offset": jnp.asarray(0.2), "start": W}


@pytest.mark.parametrize("size", [1, 6, 24])
@pytest.mark.parametrize(
    "method",
    [rfho.hyper_gradients.ReverseHyperGradient(), rfho.hyper_gradients.ForwardHyperGradient()],
)
def test_hypergradients_are_those_of_the_whole_batch(size, method):
    whole = rfho.hyper_gradient(problem(misfit), HYPER, method)
    pieces = rfho.hyper_gradient(problem(rfho.in_chunks(misfit, size)), HYPER, method)
    np.testing.assert_allclose(pieces.value, whole.value, rtol=1e-14)
    for name in HYPER:
        np.testing.assert_allclose(
            pieces.hypergradient[name], whole.hypergradient[name], rtol=1e-12, atol=1e-15
        )


def test_memory_is_that_of_one_chunk():
    def wide(w, hyper, batch):
        return jnp.mean(jnp.tanh(jnp.tanh(batch[:, None] * w) + w))

    def temporaries(function):
        given = jnp.ones(1000), None, jnp.ones(400)
        compiled = jax.jit(jax.value_and_grad(function)).lower(*given).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(rfho.in_chunks(wide, 10)) < temporaries(wide) / 10


def test_equal_chunks_are_equal_so_that_nothing_is_compiled_twice():
    assert hash(rfho.in_chunks(misfit, 2)) == hash(rfho.in_chunks(misfit, 2))
    assert rfho.in_chunks(misfit, 2) == rfho.in_chunks(misfit, 2)


def test_a_size_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="in_chunks of 7 got a batch of 24 examples"):
        rfho.in_chunks(misfit, 7)(W, HYPER, X)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("size", [0, -3, 2.5, True])
def test_a_size_that_is_no_positive_int_is_refused(size):
    with pytest.raises((TypeError, ValueError), match="size"):
        rfho.in_chunks(misfit, size)
