"""Products that share a large factor become one product, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rfho
from rfho._programs.shared_products import together

MANY, FEW = 400, 50


def data(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


X, V, W = data(MANY, FEW), data(FEW, 2, seed=1), data(FEW, 2, seed=2)
TRANSPOSED = X.T


def products_in(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("dot_general[")


def same(function, *arguments):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
        together(function)(*arguments),
        function(*arguments),
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda v, w: (X @ v, X @ w),
        lambda v, w: (v.T @ TRANSPOSED, w.T @ TRANSPOSED),
        lambda v, w: (X @ (v + 1), jnp.sin(X @ w) + 2),
        lambda v, w: {"loss": jnp.sum((X @ v) ** 2), "rest": [X @ w, v]},
    ],
    ids=["right", "left", "inside", "tree"],
)
def test_products_with_one_large_factor_are_one(function):
    assert products_in(function, V, W) == 2
    assert products_in(together(function), V, W) == 1
    same(function, V, W)


def test_a_gradient_and_its_tangent_read_the_data_twice():
    """X [w, v] on the way there, Xᵀ [g, ġ] on the way back."""

    def loss(w):
        return jnp.mean(jnp.log1p(jnp.exp(X @ w)))

    def gradient_and_tangent(v, w):
        return jax.jvp(jax.grad(loss), (w,), (v,))

    assert products_in(gradient_and_tangent, V, W) == 4
    assert products_in(together(gradient_and_tangent), V, W) == 2
    same(gradient_and_tangent, V, W)


@pytest.mark.parametrize(
    "function",
    [
        # One needs the other.
        lambda v, w: X @ (w + jnp.sum(X @ v)),
        # Other shapes, other sides, other factors.
        lambda v, w: (X @ v, X @ w[:, :1]),
        lambda v, w: (X @ v, jnp.ones((2, MANY)) @ X + w.T),
        lambda v, w: (X @ v, (X + 1) @ w),
        # No factor is large.
        lambda v, w: (X[:3] @ v, X[:3] @ w),
        # Two vectors have no columns to be put together.
        lambda v, w: (X @ v[:, 0], X @ w[:, 0]),
    ],
    ids=["dependent", "shapes", "sides", "factors", "small", "vectors"],
)
def test_all_others_are_left_alone(function):
    assert products_in(together(function), V, W) == products_in(function, V, W)
    same(function, V, W)


def test_two_joints_do_not_wait_for_each_other():
    """X v and Y (X v) may be joined with X (Y w) or with Y w, but not with both."""
    y = data(MANY, FEW, seed=3)

    def crossed(v, w):
        first, second = X @ v, y @ w
        return y @ (w + jnp.sum(first)), X @ (v + jnp.sum(second))

    assert products_in(together(crossed), V, W) == 3
    same(crossed, V, W)


def test_what_nobody_uses_is_not_computed_for_a_neighbour():
    def with_idle(v, w):
        idle = X @ w
        del idle
        return X @ v

    assert products_in(together(with_idle), V, W) == 1
    joined = str(jax.make_jaxpr(together(with_idle))(V, W))
    assert "concatenate" not in joined


@given(chain=st.lists(st.sampled_from("vwab"), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_any_order_of_products_gives_the_same_values(chain):
    """A random straight-line program: each line multiplies X by some value so far."""

    def program(v, w):
        known = {"v": v, "w": w, "a": v, "b": w}
        for i, name in enumerate(chain):
            column = jnp.tanh(jnp.sum(X @ known[name], axis=0))
            known["ab"[i % 2]] = known["vw"[i % 2]] * column
        return known

    same(program, V, W)


def problem_of(horizon=3):
    y = jnp.asarray(np.random.default_rng(4).integers(0, 2, MANY))

    def loss(params, hyper, batch):
        each = optax.softmax_cross_entropy_with_integer_labels(batch[0] @ params, batch[1])
        return jnp.mean(each) + hyper["l2"] * jnp.sum(params**2)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["rate"], 0.9), jnp.zeros((FEW, 2)))
    return rfho.Problem(dynamics, loss, (X, y), (X[:100], y[:100]), horizon)


@pytest.mark.parametrize(
    ("method", "columns"),
    [
        (rfho.hyper_gradients.ReverseHyperGradient(rfho.StoreAll(rfho.Keep.STATES)), 4),
        (rfho.hyper_gradients.ForwardHyperGradient(), 6),
    ],
    ids=["reverse", "forward"],
)
def test_a_step_of_a_linear_model_multiplies_its_data_once(method, columns):
    """By two columns of parameters and two for each tangent, with the hypergradient that all others give."""
    problem, hyper = problem_of(), {"rate": jnp.asarray(0.1), "l2": jnp.asarray(0.01)}
    kept = rfho.hyper_gradients.ReverseHyperGradient(rfho.StoreAll(rfho.Keep.RESIDUALS))
    expected = rfho.hyper_gradient(problem, hyper, kept).hypergradient
    found = rfho.hyper_gradient(problem, hyper, method).hypergradient
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11)
    program = str(jax.make_jaxpr(lambda h: method.estimate(problem, h, None)[0])(hyper))
    assert f"f64[{MANY},{columns}] = dot_general" in program
