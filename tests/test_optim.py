"""`rfho.optim`: the updates of Optax, with derivatives where Optax has none."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiler import CHEAPLY
from optax import contrib
from sampled import sampled

import rfho
from rfho.dynamics import DescentWithValue
from rfho.optim import safe_roots, safe_sqrt

NAMES = sorted(set(rfho.optim.__all__) - {"certain", "safe_roots", "safe_sqrt"})

# The first of them has a gradient in both leaves, the second in one, at all six steps.
ALIVE = jnp.array([1.0, 0.0])
START = {"a": jnp.array([[0.9, -0.6], [0.4, 0.7]]), "b": jnp.array([-0.8])}

each_name = pytest.mark.parametrize("name", NAMES)


def original(name):
    return getattr(optax, name, None) or getattr(contrib, name)


def trained(optim, rate, alive):
    """A functional of the parameters after six steps, and the parameters."""

    def step(state, _):
        params, slots = state
        gradient = {
            "a": jnp.cos(params["a"]) + 0.1 * params["b"] * alive,
            "b": alive * (params["b"] + jnp.sum(params["a"])),
        }
        value = jnp.sum(jnp.sin(params["a"])) + 2
        updates, slots = optim.update(gradient, slots, params, value=value)
        return (optax.apply_updates(params, updates), slots), None

    start = jax.tree.map(lambda leaf: rate * leaf, START)
    (params, _), _ = jax.lax.scan(step, (start, optim.init(start)), length=6)
    return jnp.sum(params["a"] ** 2) + jnp.sum(jnp.sin(params["b"])), params


def settings(name, rate):
    """A rate that is differentiated, and a β₂ at which RAdam rectifies within six steps."""
    known = inspect.signature(original(name)).parameters
    return {"learning_rate": 0.1 * rate} | ({"b2": 0.8} if "b2" in known else {})


@pytest.mark.parametrize("name", sampled(NAMES, every=2))
def test_updates_are_those_of_optax_and_derivatives_are_finite_and_right(name):
    def both(rate, alive):
        theirs = optax.with_extra_args_support(original(name)(**settings(name, rate)))
        ours = getattr(rfho.optim, name)(**settings(name, rate))
        return trained(theirs, rate, alive), trained(ours, rate, alive)

    def value(rate, alive):
        return both(rate, alive)[1][0]

    def everything(alive):
        derivatives = [jax.grad(value)(1.0, alive), jax.jvp(value, (1.0, alive), (1.0, 0.0))[1]]
        steps = jnp.array([1e-3, -1e-3, 5e-4, -5e-4])
        around = jax.vmap(lambda h: value(1.0 + h, alive))(steps)
        return both(1.0, alive), jnp.stack(derivatives), around

    program = jax.jit(jax.vmap(everything)).lower(ALIVE).compile(compiler_options=CHEAPLY)
    (theirs, ours), derivatives, around = program(ALIVE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), theirs, ours)
    coarse, fine = (around[:, 0] - around[:, 1]) / 2e-3, (around[:, 2] - around[:, 3]) / 1e-3
    # Two of them compute partly in single precision, which differences cannot resolve further.
    tolerance = 1e-2 if name in ("adafactor", "muon") else 1e-6
    expected = np.asarray((4 * fine - coarse) / 3)[:, None]
    np.testing.assert_allclose(derivatives, expected * np.ones(2), rtol=tolerance, atol=tolerance)


@each_name
def test_the_signature_is_that_of_optax(name):
    ours = getattr(rfho.optim, name)
    assert list(inspect.signature(ours).parameters) == list(
        inspect.signature(original(name)).parameters
    )
    assert name in ours.__doc__
    assert ours.__name__ == name


def test_the_state_is_that_of_optax():
    params = jnp.ones(3)
    ours, theirs = rfho.optim.adam(0.1).init(params), optax.adam(0.1).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)


def test_tuning_through_adam_with_a_dead_unit_works():
    def problem(optim):
        dynamics = rfho.Descent(
            lambda w, hyper, batch: (batch @ w - 1) ** 2,
            lambda hyper: optim(hyper["lr"]),
            lambda hyper: hyper["start"],
        )
        dead = jnp.array([1.0, 0.0])
        return rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w**2), dead, None, horizon=3)

    hyper = {"lr": 0.1, "start": jnp.array([0.0, 0.5])}
    theirs = rfho.hyper_gradient(problem(optax.adam), hyper).hypergradient
    ours = rfho.hyper_gradient(problem(rfho.optim.adam), hyper).hypergradient
    assert np.isfinite(ours["lr"])
    # The dead weight stays where it is: f has its square.
    np.testing.assert_allclose(ours["start"][1], 1.0)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_derivative_through_a_gradient_that_vanishes_at_one_point_is_right():
    # g / (√g² + ε) has the slope 1/ε at zero.
    def moved(g):
        updates, _ = optim.update(g, optim.init(g), g)
        return updates

    optim = rfho.optim.adam(1.0, eps=0.5)
    np.testing.assert_allclose(jax.grad(moved)(jnp.zeros(())), -2.0)


def test_safe_sqrt_is_sqrt_with_slope_zero_at_zero():
    x = jnp.array([0.0, 1e-300, 2.0, jnp.inf])
    np.testing.assert_array_equal(safe_sqrt(x), jnp.sqrt(x))
    assert jax.grad(safe_sqrt)(0.0) == 0
    assert jax.grad(safe_sqrt)(4.0) == 0.25
    assert np.isnan(safe_sqrt(jnp.array(-1.0)))
    assert np.isnan(safe_sqrt(jnp.array(jnp.nan), 0.0))
    assert safe_sqrt(jnp.array(-1.0), 0.0) == 0


def test_any_transformation_can_be_made_safe():
    def norm_of(g):
        updates, _ = optim.update(g, optim.init(g))
        return jnp.sum(updates)

    unsafe = optax.stateless(lambda updates, params: updates / jnp.linalg.norm(updates))
    optim = unsafe
    assert np.isnan(jax.grad(norm_of)(jnp.zeros(2))).all()
    optim = safe_roots(optax.stateless(lambda updates, params: jnp.linalg.norm(updates) * updates))
    assert (jax.grad(norm_of)(jnp.zeros(2)) == 0).all()


@pytest.mark.parametrize("dynamics", [rfho.Descent, DescentWithValue])
@pytest.mark.parametrize("method", [rfho.ReverseHyperGradient(), rfho.ForwardHyperGradient()])
def test_a_learned_clip_is_differentiated_where_a_gradient_is_zero(dynamics, method):
    """The first gradient is zero, the two after it are clipped: w = 2 lr clip. Optax as it is."""
    goal = jnp.array([0.0, 1.0, 1.0])

    def optim(hyper):
        return optax.chain(optax.clip_by_global_norm(hyper["clip"]), optax.sgd(hyper["lr"]))

    descent = dynamics(lambda w, hyper, goal: (w - goal) ** 2, optim, jnp.zeros(()))
    objective = lambda w, hyper, batch: (w - 1.0) ** 2  # noqa: E731
    problem = rfho.Problem(descent, objective, lambda t: goal[t], None, horizon=3)
    found = rfho.hyper_gradient(problem, {"lr": 0.1, "clip": 0.5}, method).hypergradient
    np.testing.assert_allclose(found["lr"], 2 * (0.1 - 1) * 2 * 0.5, rtol=1e-12)
    np.testing.assert_allclose(found["clip"], 2 * (0.1 - 1) * 2 * 0.1, rtol=1e-12)
