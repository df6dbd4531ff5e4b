"""What is told of a race: h(x) - min h with h(x) = f(w*(x), x), or the error on test examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bilevel.problems import Batches, Task

NOWHERE = float("inf")
"""The value of an outer variable that is no number any more."""

MINIMUM = 0.203627
"""Of h on ijcnn1 within |x| <= 30, by L-BFGS in float64 from the best point that any method has seen."""

CLEANEST = 0.71502
"""Of h in data cleaning within |x| <= 12, after hundreds of outer steps on all examples, in single precision."""

Measure = Callable[[np.ndarray, Any], float]
"""Of the outer variable and of the parameters where training stands."""


class Quadratic:
    """h and its minimum in closed form, in double precision."""

    def __init__(self, task: Task) -> None:
        self.train, self.valid = (
            [np.asarray(a, np.float64) for a in side.arrays] for side in (task.train, task.valid)
        )
        a, _, c, d, e, _ = self.train
        count = len(a)
        self.curved, self.cross, self.slope = a.T @ a / count, d.T @ c / count, e.mean(0)
        # h is quadratic too: its minimum from its slope at 0 and at each unit vector.
        size = c.shape[1]
        at_zero = self.slope_of(np.zeros(size))
        hessian = np.stack([self.slope_of(one) - at_zero for one in np.eye(size)], axis=1)
        if np.linalg.eigvalsh(hessian).min() <= 0:
            raise ValueError("these quadratics have no minimum: draw others")
        self.minimum = 0.0
        self.minimum = self(np.linalg.solve(hessian, -at_zero), None)

    def solution(self, x: np.ndarray) -> np.ndarray:
        return -np.linalg.solve(self.curved, self.cross @ x + self.slope)

    def slope_of(self, x: np.ndarray) -> np.ndarray:
        """∇h."""
        a, b, c, d, e, f = self.valid
        w, count = self.solution(x), len(a)
        by_w = (a.T @ (a @ w) + d.T @ (c @ x)) / count + e.mean(0)
        by_x = (b.T @ (b @ x) + c.T @ (d @ w)) / count + f.mean(0)
        return by_x - self.cross.T @ np.linalg.solve(self.curved, by_w)

    def __call__(self, x: np.ndarray, w: Any) -> float:
        if not np.isfinite(x).all() or np.abs(x).max() > 1e6:
            return NOWHERE
        a, b, c, d, e, f = self.valid
        w = self.solution(x)
        squares = 0.5 * (a @ w) ** 2 + 0.5 * (b @ x) ** 2
        return float(np.mean(squares + (c @ x) * (d @ w) + e @ w + f @ x)) - self.minimum


class Penalised:
    """h of ijcnn1, by Newton's method in double precision that begins where it last ended."""

    def __init__(self, task: Task) -> None:
        sides = (task.train, task.valid)
        self.sides = [tuple(np.asarray(a, np.float64) for a in side.arrays) for side in sides]
        self.w = np.zeros(task.w.size)

    def __call__(self, outer: np.ndarray, w: Any) -> float:
        if not np.isfinite(outer).all():
            return NOWHERE
        (x, y), (vx, vy) = self.sides
        w, weights = self.w, np.exp(np.clip(outer, -30, 30))
        for _ in range(50):
            p = 1 / (1 + np.exp(y * (x @ w)))
            slope = -(x.T @ (y * p)) / len(y) + weights * w
            if np.linalg.norm(slope) < 1e-10:
                break
            curved = (x.T * (p * (1 - p))) @ x / len(y) + np.diag(weights)
            w = w - np.linalg.solve(curved, slope)
        self.w = w
        return float(np.mean(np.logaddexp(0, -vy * (vx @ w)))) - MINIMUM


class Cleaned:
    """h of data cleaning, by accelerated gradient descent that begins where it last ended.

    The curvatures lie so near to each other that the gradient falls to rounding in a few dozen steps.
    """

    def __init__(self, task: Task, curvatures: tuple[float, float]) -> None:
        self.w, train, valid = task.w, task.train.arrays, task.valid.arrays
        low, high = curvatures
        momentum = (high**0.5 - low**0.5) / (high**0.5 + low**0.5)
        slope = jax.grad(task.loss)

        @jax.jit
        def solved(w: Any, x: Any) -> tuple[Any, Any]:
            def step(at: Any) -> Any:
                w, ahead, _, count = at
                down = slope(ahead, x, train)
                after = ahead - down / high
                return after, after + momentum * (after - w), jnp.linalg.norm(down), count + 1

            def goes_on(at: Any) -> Any:
                return (at[2] > 3e-6) & (at[3] < 200)

            w = jax.lax.while_loop(goes_on, step, (w, w, jnp.inf, 0))[0]
            return w, task.objective(w, x, valid)

        self.solved = solved

    def __call__(self, x: np.ndarray, w: Any) -> float:
        if not np.isfinite(x).all():
            return NOWHERE
        self.w, value = self.solved(self.w, jnp.asarray(x, jnp.float32))
        return float(value) - CLEANEST


class Error:
    """The share of examples that a linear model classifies wrongly."""

    def __init__(self, test: Batches) -> None:
        self.x, self.y = (np.asarray(a) for a in test.arrays)

    def __call__(self, x: np.ndarray, w: Any) -> float:
        if not (np.isfinite(x).all() and np.isfinite(w).all()):
            return NOWHERE
        return float(np.mean(np.argmax(self.x @ np.asarray(w), axis=1) != self.y))


def measure_of(task: Task, *, error: bool = False) -> Measure:
    """What is told of this problem; the ``error`` on test examples where that is asked for or all there is."""
    if task.curvatures is not None and not error:
        return Cleaned(task, task.curvatures)
    if task.test is not None:
        return Error(task.test)
    # A labelled example is two arrays, a quadratic six.
    return Penalised(task) if len(task.train.arrays) == 2 else Quadratic(task)
