"""Products that share a large factor become one product, and nothing else changes."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rfho
from rfho._programs.shared_products import SharedProducts
from rfho._programs.walk import everywhere, mere_call

MANY, FEW = 400, 50
together = SharedProducts()


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


def test_products_with_as_many_products_before_them_are_joined_and_no_others():
    """X v and Y (X v) may be joined with X (Y w) or with Y w, but not with both."""
    y = data(MANY, FEW, seed=3)

    def crossed(v, w):
        first, second = X @ v, y @ w
        return y @ (w + jnp.sum(first)), X @ (v + jnp.sum(second))

    def in_step(v, w):
        first, second = X @ v, X @ w
        return X @ (w + jnp.sum(first)), X @ (v + jnp.sum(second))

    assert products_in(together(crossed), V, W) == 4
    assert products_in(together(in_step), V, W) == 2
    same(crossed, V, W)
    same(in_step, V, W)


def test_products_in_a_compiled_function_are_found():
    inner = jax.jit(lambda v, w: (X @ v, jnp.sin(X @ w)))
    function = lambda v, w: jax.tree.map(jnp.cos, inner(v, w))  # noqa: E731
    assert products_in(together(function), V, W) == 1
    same(function, V, W)


def test_a_program_without_two_such_products_is_left_as_it_was_traced():
    """Equation by equation, and traced once."""
    traces = []

    def function(v, w):
        traces.append(None)
        inner = jax.jit(lambda v: jax.lax.fori_loop(0, 3, lambda i, v: jnp.sin(v), v))
        return X @ inner(v), jnp.cos(w)

    before, after = (jax.make_jaxpr(f)(V, W) for f in (function, together(function)))
    # From JAX 0.11 on the function may stay an equation of its own.
    only = after.jaxpr.eqns[0] if len(after.jaxpr.eqns) == 1 else None
    after = after if only is None else mere_call(only)
    assert names_in(after) == names_in(before)
    assert len(traces) == 2


def names_in(program):
    return [equation.primitive.name for equation in everywhere(program)]


def test_a_program_beyond_the_budget_is_left_alone():
    function = lambda v, w: (X @ jnp.sin(v), X @ jnp.cos(w))  # noqa: E731
    assert products_in(SharedProducts(budget=4)(function), V, W) == 1
    assert products_in(SharedProducts(budget=3)(function), V, W) == 2


def test_a_program_with_effects_keeps_their_order():
    def function(v, w):
        jax.debug.callback(lambda: None, ordered=True)
        return X @ v, X @ w

    assert products_in(together(function), V, W) == 2


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


def test_tracing_grows_no_faster_than_the_program():
    """A recurrence as a Python loop: each of its many products with one weight is looked at once."""

    def looked_at(length):
        def loss(w):
            state = V.T
            for _ in range(length):
                state = jnp.tanh(state @ w)
            return jnp.mean(state**2)

        gradient = lambda w, v: jax.jvp(jax.grad(loss), (w,), (v,))  # noqa: E731
        w = jnp.ones((FEW, FEW))
        shared, plain = (
            calls_of(lambda f=f: jax.make_jaxpr(lambda *args: f(*args))(w, w))
            for f in (SharedProducts()(gradient), gradient)
        )
        return shared / plain

    looked_at(3)
    assert looked_at(64) < 1.3 * looked_at(16)


def calls_of(function):
    """How many Python functions are called: the work of tracing, without a clock."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls
