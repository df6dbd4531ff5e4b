"""``python -m benchmarks.lasso``: the penalty of a Lasso on 38 examples of 7129 features, beside LassoCV.

Simulated data of the shape of the leukemia set: correlated features, 10 of which matter. Five folds, trained side by
side by proximal descent; λ follows the mean error on the folds left out, by implicit differentiation on the support.
Both then refit on all examples by coordinate descent; the error is that on 1000 others.
`docs/explanation/implicit.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import Lasso, LassoCV

import rfho
from rfho.dynamics import Proximal, lasso
from rfho.hyper_gradients import OnSupport
from rfho.solvers import GMRES

EXAMPLES, FEATURES, FOLDS, STEPS, HORIZON = 38, 7129, 5, 15, 30


def data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test examples."""
    rng = np.random.default_rng(seed)
    count = EXAMPLES + 1000
    factors = rng.normal(size=(count, 20)) @ rng.normal(size=(20, FEATURES)) / np.sqrt(20)
    x = 0.5 * factors + rng.normal(size=(count, FEATURES))
    truth = np.zeros(FEATURES)
    truth[rng.choice(FEATURES, 10, replace=False)] = rng.normal(size=10) + np.sign(
        rng.normal(size=10)
    )
    y = x @ truth + rng.normal(size=count)
    return x[:EXAMPLES], y[:EXAMPLES], x[EXAMPLES:], y[EXAMPLES:]


def squares(w: Any, x: Any, y: Any, weights: Any) -> jax.Array:
    """The mean squared error of each fold's column on the examples that have a weight."""
    errors = jnp.sum(weights * (x @ w - y[:, None]) ** 2, axis=0)
    return errors / jnp.sum(weights, axis=0)


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    return 0.5 * jnp.sum(squares(w, *batch))


def objective(w: Any, hyper: Any, batch: Any) -> jax.Array:
    return jnp.mean(squares(w, *batch))


PENALTY = lasso(lambda hyper: hyper)


def folded(x: np.ndarray, y: np.ndarray) -> tuple[rfho.Problem, float]:
    """All folds in one problem, with a column of weights for each, and the largest penalty that is of use."""
    fold = np.arange(EXAMPLES) % FOLDS
    kept = jnp.asarray(fold[:, None] != np.arange(FOLDS), jnp.float32)
    rate = float(np.min(np.sum(np.asarray(kept), axis=0)) / np.linalg.norm(x, 2) ** 2)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    init = jnp.zeros((FEATURES, FOLDS), jnp.float32)
    dynamics = Proximal(loss, PENALTY, jnp.asarray(rate, jnp.float32), init=init)
    problem = rfho.Problem(dynamics, objective, (x, y, kept), (x, y, 1 - kept), HORIZON)
    return problem, float(jnp.max(jnp.abs(x.T @ y)) / EXAMPLES)


METHOD = rfho.ImplicitHyperGradient(
    GMRES(max_products=40), condition=OnSupport(), tolerance=1e-3, audit=None
)
OPTIM = optax.adam(0.2)


def tuned(x: np.ndarray, y: np.ndarray) -> float:
    """λ."""
    problem, most = folded(x, y)
    begin = jnp.asarray(0.3 * most, jnp.float32)
    options: Any = {"method": METHOD, "optim": OPTIM, "domain": rfho.Positive(), "steps": STEPS}
    return float(rfho.tune(problem, begin, **options).best.hyper)


def main() -> None:
    """Prints a row for each seed; the first compiles."""
    print(
        f"{'':>6}{'rfho: λ':>9}{'error':>8}{'CPU s':>8}{'LassoCV: λ':>12}{'error':>8}{'CPU s':>8}"
    )
    for seed in range(4):
        x, y, test_x, test_y = data(seed)
        found = []
        for penalty_of in (
            tuned,
            lambda x, y: LassoCV(cv=FOLDS, fit_intercept=False).fit(x, y).alpha_,
        ):
            begin = time.process_time()
            penalty = penalty_of(x, y)
            spent = time.process_time() - begin
            model = Lasso(penalty, fit_intercept=False).fit(x, y)
            found += [penalty, float(np.mean((model.predict(test_x) - test_y) ** 2)), spent]
        name = "first" if seed == 0 else str(seed)
        print(
            "{:>6}{:>9.3f}{:>8.2f}{:>8.2f}{:>12.3f}{:>8.2f}{:>8.2f}".format(name, *found),
            flush=True,
        )


if __name__ == "__main__":
    main()
