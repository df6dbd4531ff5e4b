"""w*(λ) as a function: its derivatives are those of the closed form, whoever finds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import rfho
from rfho import solvers

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=12)
HYPER = {"l2": jnp.array([0.5, 1.0, 2.0]), "shift": jnp.asarray(0.3), "degree": 2}


def loss(w, hyper):
    residual = X @ w - Y - hyper["shift"]
    return 0.5 * jnp.sum(residual**2) + 0.5 * jnp.sum(hyper["l2"] * w ** hyper["degree"])


def closed(hyper):
    return jnp.linalg.solve(X.T @ X + jnp.diag(hyper["l2"]), X.T @ (Y + hyper["shift"]))


def by_a_loop(hyper):
    """Plain descent until it stands still: no derivative goes through such a loop backwards."""

    def goes_on(w):
        return jnp.linalg.norm(jax.grad(loss)(w, hyper)) > 1e-13

    return jax.lax.while_loop(goes_on, lambda w: w - 0.03 * jax.grad(loss)(w, hyper), jnp.zeros(3))


def by_scipy(hyper):
    assert all(isinstance(hyper[name], np.ndarray) for name in ("l2", "shift"))
    matrix = X.T @ X + np.diag(hyper["l2"])
    slope = lambda w: matrix @ w - X.T @ (Y + hyper["shift"])  # noqa: E731
    value = lambda w: 0.5 * w @ matrix @ w - w @ X.T @ (Y + hyper["shift"])  # noqa: E731
    options = {"gtol": 1e-12}
    return minimize(value, np.zeros(3), jac=slope, method="L-BFGS-B", tol=1e-15, options=options).x


FOUND = {
    "a loop": rfho.solution(jax.grad(loss), by_a_loop, tolerance=1e-13),
    "SciPy": rfho.solution(jax.grad(loss), by_scipy, tolerance=1e-13, like=jnp.zeros(3)),
}


def free(function):
    """``function`` of the floating-point part alone."""
    return lambda l2, shift: function({"l2": l2, "shift": shift, "degree": 2})


@pytest.mark.parametrize("name", FOUND)
def test_derivatives_are_those_of_the_closed_form(name):
    at = HYPER["l2"], HYPER["shift"]
    ours, exact = (free(function) for function in (FOUND[name], closed))
    rough = 1e-6 if name == "SciPy" else 1e-10
    np.testing.assert_allclose(ours(*at), exact(*at), atol=rough)
    for derivative in (jax.jacfwd, jax.jacrev):
        found = jax.jit(derivative(ours, argnums=(0, 1)))(*at)
        expected = derivative(exact, argnums=(0, 1))(*at)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=rough)


def test_it_is_differentiated_twice_and_mapped():
    ours, exact = (
        lambda s, f=f: jnp.sum(f(HYPER["l2"], s) ** 2)
        for f in (free(FOUND["a loop"]), free(closed))
    )
    shifts = jnp.array([-0.5, 0.2])
    found = jax.vmap(jax.grad(jax.grad(ours)))(shifts)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(jax.grad(exact)))(shifts), rtol=1e-8)
    many = jax.vmap(free(FOUND["SciPy"]), in_axes=(None, 0))(HYPER["l2"], shifts)
    expected = jax.vmap(free(closed), in_axes=(None, 0))(HYPER["l2"], shifts)
    np.testing.assert_allclose(many, expected, atol=1e-6)


def test_a_condition_that_is_no_gradient_takes_another_solver():
    matrix = jnp.array([[0.5, 0.3], [-0.4, 0.2]])

    def step(w, hyper):
        return matrix @ jnp.tanh(w) + hyper

    def by_iteration(hyper):
        return jax.lax.fori_loop(0, 200, lambda _, w: step(w, hyper), jnp.zeros(2))

    found = rfho.solution(
        lambda w, h: w - step(w, h), by_iteration, linear=solvers.GMRES(), tolerance=1e-12
    )
    hyper = jnp.array([0.3, -0.2])
    expected = jax.jacfwd(by_iteration)(hyper)
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(derivative(found)(hyper), expected, atol=1e-9)


def test_how_far_the_solver_stopped_is_told():
    near = rfho.solution(jax.grad(loss), lambda hyper: closed(hyper) * 1.01)
    np.testing.assert_allclose(near.distance(HYPER), 0.01 / 1.01, rtol=1e-4)
    assert FOUND["a loop"].distance(HYPER) < 1e-12


def test_what_is_no_function_or_no_solver_is_refused():
    with pytest.raises(TypeError, match="solver"):
        rfho.solution(jax.grad(loss), None)
    with pytest.raises(TypeError, match="linear"):
        rfho.solution(jax.grad(loss), closed, linear="cg")
