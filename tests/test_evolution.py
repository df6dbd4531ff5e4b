"""Evolution strategies: unbiased after every window, for the smoothed objective."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import PersistentEvolutionHyperGradient, SingleEvolutionHyperGradient

PAIRS = 20_000
BOTH = (PersistentEvolutionHyperGradient, SingleEvolutionHyperGradient)
EVERY, HORIZON = 2, 7  # three windows and a step that is left out
HYPER = {"a": jnp.asarray(0.7), "b": jnp.asarray([0.2, -0.4])}
WAVES = jnp.sin(jnp.arange(2.0 * HORIZON)).reshape(HORIZON, 2)


def linear_step(w, hyper, wave):
    """Linear in λ, so that any quadratic objective is quadratic in the λ of all windows."""
    return 0.9 * w + hyper["a"] * wave[0] + jnp.dot(hyper["b"], wave)


def quadratic(w, hyper, batch):
    return 0.5 * (w - 1) ** 2 + 0.1 * hyper["a"] ** 2


LINEAR = rfho.Problem(
    rfho.Dynamics(lambda hyper: 2 * hyper["a"], linear_step),
    quadratic,
    train=lambda t: WAVES[t],
    valid=None,
    horizon=HORIZON,
)


def exact(steps):
    def objective(hyper):
        w = 2 * hyper["a"]
        for t in range(steps):
            w = linear_step(w, hyper, WAVES[t])
        return quadratic(w, hyper, None)

    return jax.grad(objective)(HYPER)


def distance(found, expected):
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, found, expected)))


def windows(method, count):
    step = jax.jit(lambda carry: method.estimate(LINEAR, HYPER, carry))
    carry, found = method.init(LINEAR, HYPER), []
    for _ in range(count):
        estimate, carry = step(carry)
        found.append(estimate)
    return found


@pytest.mark.parametrize("kind", BOTH)
def test_every_window_of_every_run_is_unbiased(kind):
    sigma = {"a": 0.3, "b": 0.1}
    found = windows(kind(PAIRS, sigma, every=EVERY, key=0), 4)
    for estimate, steps in zip(found, (2, 4, 6, 2), strict=True):  # then a new run begins
        error = float(estimate.aux.stats["standard_error"])
        assert int(estimate.aux.stats["t"]) == steps
        assert distance(estimate.hypergradient, exact(steps)) <= 4 * error
        assert error < 0.2 * float(optax.tree.norm(exact(steps)))  # the bar is not too wide


def test_the_stated_error_is_the_spread_over_keys():
    method = PersistentEvolutionHyperGradient(50, 0.1, every=EVERY, key=0)
    carry = method.init(LINEAR, HYPER)

    @jax.jit
    @jax.vmap
    def draw(draws):
        estimate, _ = method.estimate(LINEAR, HYPER, carry._replace(draws=draws))
        return distance_squared(estimate), estimate.aux.stats["standard_error"] ** 2

    target = exact(EVERY)

    def distance_squared(estimate):
        return optax.tree.norm(jax.tree.map(jnp.subtract, estimate.hypergradient, target)) ** 2

    found, stated = (np.asarray(array) for array in draw(jnp.arange(1000)))
    assert abs(found.mean() - stated.mean()) <= 4 * found.std() / np.sqrt(1000)


def test_one_perturbation_for_the_run_has_less_variance_than_many():
    persistent, single = (windows(kind(2000, 0.1, every=1, key=0), 7)[-1] for kind in BOTH)
    assert float(persistent.aux.stats["standard_error"]) > 1.5 * float(
        single.aux.stats["standard_error"]
    )


@pytest.mark.parametrize("kind", BOTH)
def test_it_is_the_gradient_of_the_smoothed_objective(kind):
    problem = rfho.Problem(
        rfho.Dynamics(lambda hyper: hyper, lambda w, hyper, batch: w),
        {"wave": lambda w, hyper, batch: jnp.sin(w["wave"]), "jump": _positive},
        train=None,
        valid=None,
        horizon=1,
    )
    hyper = {"wave": jnp.asarray(0.5), "jump": jnp.asarray(0.3)}
    method = kind(PAIRS, {"wave": 1.0, "jump": 0.5}, every=1, key=2)
    estimate, _ = jax.jit(lambda: method.estimate(problem, hyper, method.init(problem, hyper)))()
    smooth_wave = np.cos(0.5) * np.exp(-0.5)
    smooth_jump = np.exp(-((0.3 / 0.5) ** 2) / 2) / (0.5 * np.sqrt(2 * np.pi))
    bar = 4 * float(estimate.aux.stats["standard_error"])
    assert abs(float(estimate.hypergradient["wave"]) - smooth_wave) <= bar < 0.1
    assert abs(float(estimate.hypergradient["jump"]) - smooth_jump) <= bar


def _positive(w, hyper, batch):
    return jnp.where(w["jump"] > 0, 1.0, 0.0)


def test_it_tunes():
    method = PersistentEvolutionHyperGradient(20, 0.05, every=HORIZON, key=0)
    start, _ = method.conclude(LINEAR, HYPER, method.init(LINEAR, HYPER))
    solution = rfho.tune(LINEAR, HYPER, method=method, optim=optax.adam(0.05), steps=60)
    assert solution.value < 0.5 * start


@pytest.mark.parametrize("kind", BOTH)
def test_what_cannot_be_meant_is_refused(kind):
    with pytest.raises(ValueError, match="pairs=1"):
        kind(1, 0.1, every=1, key=0)
    with pytest.raises(ValueError, match="every=0"):
        kind(2, 0.1, every=0, key=0)
    with pytest.raises(ValueError, match=r'sigma\["a"\]=0'):
        kind(2, {"a": 0.0}, every=1, key=0)
    with pytest.raises(ValueError, match="cannot be longer than the horizon of 7"):
        kind(2, 0.1, every=8, key=0).init(LINEAR, HYPER)
