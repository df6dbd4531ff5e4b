"""A penalty for every parameter overfits a small validation set (arXiv 1911.02590)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import rfho
from benchmarks.reproduce.row import Row, digits

PAPER = "Lorraine 2020, 1911.02590"


def entropy(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """The objective."""
    return optax.softmax_cross_entropy_with_integer_labels(batch[0] @ w, batch[1]).mean()


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    return entropy(w, hyper, batch) + 0.5 * jnp.sum(jnp.exp(hyper) * w**2)


def accuracy(w: Any, batch: Any) -> float:
    return float(jnp.mean(jnp.argmax(batch[0] @ w, axis=1) == batch[1]))


def run(*, small: bool) -> list[Row]:
    """7850 penalties on 50 + 50 digits."""
    x, y = digits("train", 100)
    x = jnp.concatenate([jnp.asarray(x, float), jnp.ones((100, 1))], axis=1)
    train, valid = (x[:50], jnp.asarray(y[:50])), (x[50:], jnp.asarray(y[50:]))
    images, labels = digits("t10k", 10000)
    test = jnp.concatenate([jnp.asarray(images), jnp.ones((10000, 1))], axis=1), labels
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), jnp.zeros((785, 10)))
    problem = rfho.Problem(dynamics, entropy, train, valid, horizon=20)
    method = rfho.ImplicitHyperGradient(rfho.solvers.Neumann(terms=20, rate=0.1), audit=None)
    steps = 3 if small else 300
    solution = rfho.tune(
        problem, jnp.full((785, 10), -4.0), method=method, optim=optax.rmsprop(0.1), steps=steps
    )
    w, value = solution.params, float(solution.value)
    fitted, unseen = accuracy(w, valid), accuracy(w, test)
    return [
        Row(
            f"MNIST, 50 + 50 digits, linear model, 7850 penalties, Neumann of 20 terms, {steps} steps",
            "training with as many penalties as parameters fits the validation set perfectly (section 5.1)",
            f"validation accuracy {100 * fitted:.0f} %, loss {value:.4f}; test accuracy {100 * unseen:.0f} %",
            fitted == 1.0,
        )
    ]
