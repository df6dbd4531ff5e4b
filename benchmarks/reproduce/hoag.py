"""One penalty of a logistic regression by inexact hypergradients (HOAG, arXiv 1602.02355)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
import scipy.sparse as sp
import scipy.special

import rfho
from benchmarks.reproduce.row import Row, folder

PAPER = "Pedregosa 2016 (HOAG), 1602.02355"


def logistic(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """The objective."""
    return jnp.mean(jax.nn.softplus(-batch[1] * (batch[0] @ w)))


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    return logistic(w, hyper, batch) + 0.5 * jnp.exp(hyper) * jnp.sum(w**2)


def ijcnn1(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples in a random order."""
    with np.load(folder() / "ijcnn1.npz") as file:
        x, y = file["x_train_e6"] / 1e6, file["y_train"]
    order = np.random.default_rng(0).permutation(len(y))[:count]
    return x[order], np.where(y[order] > 0, 1.0, -1.0)


def newsgroups(count: int, words: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """The commonest words by tf-idf, rows of unit length; the first ten groups against the others."""
    counts = sp.csr_array(sp.load_npz(folder() / "news20_counts_train.npz")).astype(float)
    with np.load(folder() / "news20_labels.npz") as file:
        y = np.where(file["y_train"] < 10, 1.0, -1.0)
    containing = np.bincount(counts.indices, minlength=counts.shape[1])
    # The commonest of all are in nearly every message.
    kept = np.argsort(-containing)[100 : 100 + words]
    order = np.random.default_rng(0).permutation(len(y))[:count]
    x = counts[order][:, kept].toarray() * np.log((1 + len(y)) / (1 + containing[kept]))
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), y[order]


def least(x: np.ndarray, y: np.ndarray, half: int) -> tuple[float, float]:
    """The best penalty by bounded search, each training to the end with L-BFGS, and its held-out loss."""

    def held_out(alpha: float) -> float:
        def at(w: np.ndarray) -> tuple[float, np.ndarray]:
            margins = y[:half] * (x[:half] @ w)
            slope = -x[:half].T @ (y[:half] * scipy.special.expit(-margins)) / half
            value = np.mean(np.logaddexp(0, -margins)) + 0.5 * np.exp(alpha) * w @ w
            return value, slope + np.exp(alpha) * w

        w = scipy.optimize.minimize(
            at, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000}
        ).x
        return float(np.mean(np.logaddexp(0, -y[half:] * (x[half:] @ w))))

    found = scipy.optimize.minimize_scalar(held_out, bounds=(-14, 0), method="bounded")
    return float(found.x), float(found.fun)


def row(name: str, data: tuple[np.ndarray, np.ndarray], steps: int, *, decay: float) -> Row:
    """HOAG on one set, halved, under Adam whose rate falls by a factor every 20 steps."""
    x, y = data
    half = len(y) // 2
    sides = [(jnp.asarray(x[s]), jnp.asarray(y[s])) for s in (slice(half), slice(half, None))]
    dynamics = rfho.dynamics.DescentWithValue(
        loss, lambda hyper: optax.lbfgs(), jnp.zeros(x.shape[1])
    )
    problem = rfho.Problem(dynamics, logistic, *sides, horizon=10)
    method = rfho.ImplicitHyperGradient(
        tolerance=lambda k: 0.1 * 0.9**k, inner_tolerance=lambda k: 0.01 * 0.9**k, audit=None
    )
    schedule = optax.exponential_decay(0.8, 20, decay)
    solution = rfho.tune(
        problem, jnp.asarray(0.0), method=method, optim=optax.adam(schedule), steps=steps
    )
    alpha, best = least(x, y, half)
    found = float(solution.value)
    return Row(
        f"{name}, tolerances 0.1 · 0.9ᵏ, {steps} steps",
        "converges to the penalty that is best on held-out data (figures 2, 3)",
        f"held-out loss {found:.5f} at α = {float(solution.hyper):.2f}; bounded search {best:.5f} at {alpha:.2f}",
        found <= best * (1 + 1e-3),
    )


def run(*, small: bool) -> list[Row]:
    """Both sets of the paper that are at hand; both are scaled down."""
    count = 400 if small else 10000
    name = f"ijcnn1, {count // 2} + {count // 2} examples"
    first = row(name, ijcnn1(count), 3 if small else 60, decay=0.4)
    count, words = (400, 50) if small else (4000, 1000)
    name = f"20 newsgroups, {count // 2} + {count // 2} messages, {words} words (the paper: all)"
    return [first, row(name, newsgroups(count, words), 3 if small else 100, decay=0.5)]
