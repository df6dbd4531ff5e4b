"""``python -m benchmarks.lasso``: the penalty of a Lasso on 38 examples of 7129 features, beside LassoCV.

Simulated data of the shape of the leukemia set: correlated features, 10 of which matter. Both take the same five
folds, and search the same range of penalties; rfho at ten of them, then where cubics through values and derivatives
have their minima. Each fold is fitted on a working set of its own, by proximal descent, and differentiated on the
support. Both then refit on all examples by coordinate descent; the error is that on 1000 others.
`docs/explanation/implicit.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import Lasso, LassoCV

import rfho
from rfho.dynamics import Proximal, lasso, left_out, working_set
from rfho.hyper_gradients import OnSupport
from rfho.solvers import GMRES

EXAMPLES, FEATURES, FOLDS = 38, 7129, 5
ROOM, ROUNDS, HORIZON = 128, 10, 60
SMALLEST, POINTS, REFINED = 1e-3, 10, 3
"""The least penalty by the largest, LassoCV's own; how many are tried between them, and how many cubics after."""


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


def errors(w: Any, x: Any, y: Any, weights: Any) -> jax.Array:
    """Of each fold on the examples that have a weight; x has the fold's own features."""
    return weights * (jnp.einsum("kef,kf->ke", x, w) - y)


def loss(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """The halved mean squares of all folds."""
    return 0.5 * jnp.sum(jnp.sum(errors(w, *batch) ** 2, axis=1) / jnp.sum(batch[2], axis=1))


def objective(w: Any, hyper: Any, batch: Any) -> jax.Array:
    """The mean over folds of the mean squares on what each has not seen."""
    return 2 * loss(w, hyper, batch) / FOLDS


PENALTY = lasso(lambda hyper: hyper)
METHOD = rfho.ImplicitHyperGradient(
    GMRES(max_products=40), condition=OnSupport(), tolerance=1e-3, warm_start=False, audit=None
)


@eqx.filter_jit
def fitted(w: Any, penalty: Any, x: Any, y: Any, kept: Any) -> tuple[Any, Any]:
    """Value, derivative and w at a penalty, and what is left of y in each fold by the number of its examples."""
    own = x * kept[:, :, None]
    count = jnp.sum(kept, axis=1)
    curvatures = jnp.linalg.eigvalsh(own @ jnp.swapaxes(own, 1, 2))[:, -1] / count
    dynamics = Proximal(loss, PENALTY, 1 / jnp.max(curvatures), init=w)
    problem = rfho.Problem(dynamics, objective, (x, y, kept), (x, y, 1 - kept), HORIZON).at(0)
    estimate, _ = METHOD.estimate(problem, penalty, METHOD.init(problem, penalty))
    return estimate, errors(estimate.aux.params, x, y, kept) / count[:, None]


class Seen(NamedTuple):
    """The logarithm of a penalty, the objective there, and its derivative by that logarithm."""

    at: float
    value: float
    slope: float


class Folds:
    """All folds at once, warm from one penalty to the next."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        self.columns = np.ascontiguousarray(self.x.T)
        left = np.array_split(np.arange(EXAMPLES), FOLDS)
        self.kept = np.stack([~np.isin(np.arange(EXAMPLES), out) for out in left]).astype(
            np.float32
        )
        self.w = np.zeros((FOLDS, FEATURES), np.float32)
        self.slope = -(self.kept * self.y) / self.kept.sum(1, keepdims=True) @ self.x
        self.most = float(np.abs(self.slope).max())

    def __call__(self, at: float) -> Seen:
        """What the objective is at exp(at), once no feature is missed."""
        penalty = np.float32(np.exp(at))
        for _ in range(ROUNDS):
            rows = working_set(self.slope, ROOM)
            begin = np.take_along_axis(self.w, rows, axis=1)
            x = self.columns[rows].transpose(0, 2, 1)
            estimate, residuals = fitted(begin, penalty, x, self.y, self.kept)
            self.w = np.zeros_like(self.w)
            np.put_along_axis(self.w, rows, np.asarray(estimate.aux.params), axis=1)
            self.slope = np.asarray(residuals) @ self.x
            if left_out(self.slope, rows, penalty) <= 1:
                return Seen(at, float(estimate.value), float(penalty * estimate.hypergradient))
        raise RuntimeError(f"{ROOM} features are too few for a fold's support: take more")


def lowest(one: Seen, other: Seen) -> float:
    """Where between them the cubic is lowest that has both values and both slopes (Hermite's)."""
    width, t = other.at - one.at, np.linspace(0, 1, 201)
    values = (1 + 2 * t) * (1 - t) ** 2 * one.value + t**2 * (3 - 2 * t) * other.value
    slopes = t * (1 - t) ** 2 * one.slope - t**2 * (1 - t) * other.slope
    return one.at + width * float(t[np.argmin(values + width * slopes)])


def tuned(x: np.ndarray, y: np.ndarray) -> float:
    """λ."""
    folds = Folds(x, y)
    begin = np.log(folds.most)
    seen = [folds(at) for at in np.linspace(begin, begin + np.log(SMALLEST), POINTS)]
    for _ in range(REFINED):
        best = min(seen, key=lambda one: one.value)
        side = -1 if best.slope > 0 else 1
        beside = [one for one in seen if side * (one.at - best.at) > 0]
        if not beside:
            break
        seen.append(folds(lowest(best, min(beside, key=lambda one: abs(one.at - best.at)))))
    return float(np.exp(min(seen, key=lambda one: one.value).at))


def by_path(x: np.ndarray, y: np.ndarray) -> float:
    """scikit-learn's: 100 penalties, coordinate descent."""
    return float(LassoCV(cv=FOLDS, fit_intercept=False).fit(x, y).alpha_)


def row(seed: int, ways: tuple[Callable[..., float], ...]) -> list[float]:
    """λ, error and CPU seconds of each way."""
    x, y, test_x, test_y = data(seed)
    found: list[float] = []
    for way in ways:
        begin = time.process_time()
        penalty = way(x, y)
        spent = time.process_time() - begin
        model = Lasso(penalty, fit_intercept=False).fit(x, y)
        found += [penalty, float(np.mean((model.predict(test_x) - test_y) ** 2)), spent]
    return found


def main() -> None:
    """Prints a row for each seed, once a first has compiled, and the medians."""
    print(
        f"{'':>7}{'rfho: λ':>9}{'error':>8}{'CPU s':>8}{'LassoCV: λ':>12}{'error':>8}{'CPU s':>8}"
    )
    form = "{:>7}{:>9.3f}{:>8.2f}{:>8.3f}{:>12.3f}{:>8.2f}{:>8.3f}{:>6.1f} x"
    rows = []
    for seed in range(-1, 10):
        found = row(max(seed, 0), (tuned, by_path))
        if seed >= 0:
            rows.append(found)
        name = "first" if seed < 0 else str(seed)
        print(form.format(name, *found, found[5] / found[2]), flush=True)
    print(form.format("median", *np.median(rows, axis=0), np.median([r[5] / r[2] for r in rows])))


if __name__ == "__main__":
    main()
