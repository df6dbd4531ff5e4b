"""The Nyström method beside conjugate gradients and the Neumann series (arXiv 2302.09726)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import rfho
from benchmarks.reproduce.row import Row
from rfho.solvers import CG, AbstractSolver, Neumann, Nystrom

PAPER = "Hataya & Yamada 2023, 2302.09726"
FEATURES, EXAMPLES = 100, 500


def entropy(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """The objective."""
    return jnp.mean(jax.nn.softplus(-batch[1] * (batch[0] @ w)))


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    return entropy(w, hyper, batch) + 0.5 * jnp.sum(hyper * w**2)


def data() -> tuple[Any, Any]:
    """Training and validation examples: y = 1 where a random hyperplane with noise says so."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2 * EXAMPLES, FEATURES))
    truth = jax.random.normal(keys[1], (FEATURES,))
    y = jnp.where(x @ truth + 0.1 * jax.random.normal(keys[2], (2 * EXAMPLES,)) > 0, 1.0, -1.0)
    return (x[:EXAMPLES], y[:EXAMPLES]), (x[EXAMPLES:], y[EXAMPLES:])


def tuned(solver: AbstractSolver, steps: int) -> float:
    """The validation loss after so many outer steps, each of a training that begins anew."""
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), jnp.zeros(FEATURES))
    problem = rfho.Problem(dynamics, entropy, *data(), horizon=100)
    method = rfho.ImplicitHyperGradient(solver, warm_start=False, audit=None)
    options: Any = {"method": method, "optim": optax.sgd(1.0, momentum=0.9), "steps": steps}
    domain, begin = rfho.NonNegative(), jnp.ones(FEATURES)
    return float(rfho.tune(problem, begin, domain=domain, throw=False, **options).value)


def run(*, small: bool) -> list[Row]:
    """A weight decay for each of 100 parameters, as in section 5.1."""
    steps = 2 if small else 100
    terms = (5,) if small else (5, 20)
    rivals = {f"CG, {n} steps": tuned(CG(max_products=n), steps) for n in terms}
    rivals |= {f"Neumann, {n} terms": tuned(Neumann(n, 0.1), steps) for n in terms}
    dampings = (0.1,) if small else (0.01, 0.1, 1.0)
    ours = {damping: tuned(Nystrom(5, damping), steps) for damping in dampings}
    told = ", ".join(f"{name} {value:.4f}" for name, value in rivals.items())
    by_damping = ", ".join(f"{value:.4f} (ρ = {d:g})" for d, value in ours.items())
    least, most = min(ours.values()), max(ours.values())
    return [
        Row(
            f"logistic regression of 100 features, a weight decay for each, k = 5, {steps} steps",
            "comparable or superior to CG and the Neumann series (figure 2)",
            f"Nyström {by_damping}; {told}",
            least <= min(rivals.values()) * 1.02,
        ),
        Row(
            "the same over ρ",
            "works over a wide range of ρ (figure 3)",
            f"validation losses from {least:.4f} to {most:.4f}",
            most <= 1.1 * least,
        ),
    ]
