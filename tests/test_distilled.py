"""All steps so far, distilled into one product: beside the formulas of the paper in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho import DistilledHyperGradient

RATE, STEPS, KEY = 0.1, 8, jax.random.key(3)
RNG = np.random.default_rng(0)
CURVED = np.diag([1.0, 2.0, 0.5]) + 0.2
BATCHES, PULL, GOAL, START = (RNG.uniform(0.5, 1.5, 5), *RNG.normal(size=(3, 3)))
HYPER = np.array([0.3, 0.1, 0.7])


def loss(w, hyper, batch):
    return 0.5 * w @ CURVED @ w - batch * PULL @ w + 0.5 * batch * jnp.sum(hyper * w**2)


def objective(w, hyper, batch):
    return 0.5 * jnp.sum((w - GOAL) ** 2) + 0.1 * jnp.sum(hyper**2)


def problem_of(horizon=STEPS, optim=lambda hyper: optax.sgd(RATE)):
    train = rfho.Indexed(jnp.asarray(BATCHES), np.arange(5)[:, None])
    single = lambda w, hyper, batch: loss(w, hyper, batch[0])  # noqa: E731
    dynamics = rfho.Descent(single, optim, jnp.asarray(START))
    return rfho.Problem(dynamics, objective, train, horizon=horizon)


def estimates(method, problem, steps=STEPS):
    moment, hyper = problem.at(0), jnp.asarray(HYPER)
    carry, found = method.init(moment, hyper), []
    one = jax.jit(lambda carry: method.estimate(moment, hyper, carry))
    for _ in range(steps):
        estimate, carry = one(carry)
        found.append((np.asarray(estimate.hypergradient), float(estimate.aux.stats["scale"])))
    return found


class Reference:
    """Each formula of the paper, written out."""

    def __init__(self, gamma):
        self.gamma = gamma

    def at(self, t):
        return BATCHES[t % 5]

    def matrix(self, t):
        return np.eye(3) - RATE * (CURVED + self.at(t) * np.diag(HYPER))

    def product(self, alpha, point):
        w, t = point
        return -RATE * self.at(t) * w * alpha

    def mixed(self, keep, old, new, key):
        drawn = float(jax.random.uniform(key))
        return keep * old[0] + (1 - keep) * new[0], old[1] if drawn < keep else new[1]

    def fitted(self, start, w, t, alpha):
        key = jax.random.fold_in(KEY, t)
        back, total, point, xy, xx = alpha, np.zeros(3), (w, t), 0.0, 0.0
        for s in range(1, t + 1):
            here = start + (w - start) * (t - s) / t
            total = total + self.product(back, (here, t - s))
            back = back @ self.matrix(t - s)
            keep = (1 - self.gamma ** (s - 1)) / (1 - self.gamma**s)
            point = self.mixed(keep, point, (here, t - s), jax.random.fold_in(key, s))
            v = self.product(alpha, point)
            x = np.linalg.norm(v) * (1 - self.gamma**s) / (1 - self.gamma)
            y = total @ v / np.linalg.norm(v)
            xy, xx = xy + x * y, xx + x * x
        return xy / xx

    def run(self):
        w, point, theta = START, (START, 0), 1.0
        for t in range(1, STEPS + 1):
            keep = (self.gamma - self.gamma**t) / (1 - self.gamma**t)
            point = self.mixed(keep, point, (w, t - 1), jax.random.fold_in(KEY, t))
            w = self.matrix(t - 1) @ w + RATE * self.at(t - 1) * PULL
            alpha = w - GOAL
            if t in (1, 2, 4, 8):
                theta = self.fitted(START, w, t, alpha)
            length = theta * (1 - self.gamma**t) / (1 - self.gamma)
            yield 0.2 * HYPER + length * self.product(alpha, point), theta


@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_it_is_what_the_paper_writes(gamma):
    found = estimates(DistilledHyperGradient(gamma, KEY), problem_of())
    for (one, theta), (other, scale) in zip(found, Reference(gamma).run(), strict=True):
        np.testing.assert_allclose(theta, scale, rtol=1e-10)
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_without_a_past_it_is_the_last_step_alone():
    problem, direct = problem_of(), 0.2 * HYPER
    alone = estimates(DistilledHyperGradient(0.0, KEY, scale=1.0), problem)
    fitted = estimates(DistilledHyperGradient(0.0, KEY), problem)
    moment, hyper = problem.at(0), jnp.asarray(HYPER)
    method = rfho.OnlineTruncatedHyperGradient(1, 1)
    carry = method.init(moment, hyper)
    for (one, _), (longer, theta) in zip(alone, fitted, strict=True):
        estimate, carry = method.estimate(moment, hyper, carry)
        np.testing.assert_allclose(one, estimate.hypergradient, rtol=1e-10)
        np.testing.assert_allclose(longer - direct, theta * (one - direct), rtol=1e-10)


def test_at_a_fitting_discount_it_is_nearer_the_whole_sum_than_the_last_step_is():
    problem, hyper = problem_of(horizon=64), jnp.asarray(HYPER)
    whole = np.asarray(rfho.hyper_gradient(problem, hyper).hypergradient)
    options = {"every": 64}
    far, near = (
        np.linalg.norm(estimates(method, problem, 1)[0][0] - whole)
        for method in (
            DistilledHyperGradient(0.0, KEY, scale=1.0, **options),
            DistilledHyperGradient(0.5, KEY, **options),
        )
    )
    assert near < 0.6 * far


def test_slots_and_counters_of_an_optimiser_have_their_part():
    problem = problem_of(optim=lambda hyper: rfho.optim.adam(RATE))
    method = DistilledHyperGradient(0.8, KEY, every=STEPS)
    estimate = rfho.hyper_gradient(problem, jnp.asarray(HYPER), method)
    exact = rfho.hyper_gradient(problem, jnp.asarray(HYPER)).hypergradient
    assert np.isfinite(estimate.hypergradient).all()
    assert jnp.sum(jnp.sign(estimate.hypergradient) == jnp.sign(exact)) >= 2
    assert estimate.error is None
    assert 0 <= estimate.aux.stats["unexplained"] <= 1
