"""h(x) = f(w*(x), x) and its minimum: ``python -m benchmarks.bilevel.value covtype``.

w* in closed form where loss and objective are quadratic, and elsewhere by L-BFGS on all examples, in the metric in
which features and penalty together have unit curvature.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.scipy.linalg import solve_triangular

from benchmarks.bilevel.problems import TASKS, Task

NOWHERE = float("inf")
"""The value of an outer variable that is no number any more."""

CURVATURE = 0.15
"""Of the losses in their scores, roughly; the metric need not be exact."""


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
        self.minimum = self(np.linalg.solve(hessian, -at_zero))

    def solution(self, x: np.ndarray) -> np.ndarray:
        return -np.linalg.solve(self.curved, self.cross @ x + self.slope)

    def slope_of(self, x: np.ndarray) -> np.ndarray:
        """∇h."""
        a, b, c, d, e, f = self.valid
        w, count = self.solution(x), len(a)
        by_w = (a.T @ (a @ w) + d.T @ (c @ x)) / count + e.mean(0)
        by_x = (b.T @ (b @ x) + c.T @ (d @ w)) / count + f.mean(0)
        return by_x - self.cross.T @ np.linalg.solve(self.curved, by_w)

    def __call__(self, x: np.ndarray) -> float:
        if not np.isfinite(x).all() or np.abs(x).max() > 1e6:
            return NOWHERE
        a, b, c, d, e, f = self.valid
        w = self.solution(x)
        squares = 0.5 * (a @ w) ** 2 + 0.5 * (b @ x) ** 2
        return float(np.mean(squares + (c @ x) * (d @ w) + e @ w + f @ x)) - self.minimum


class Linear:
    """h of a linear model by L-BFGS, each from where the last ended, in single precision."""

    def __init__(self, task: Task) -> None:
        self.task, self.minimum = task, task.minimum
        self.u = np.zeros(task.w.size)
        x = task.train.arrays[0]
        self.covariance = CURVATURE * (x.T @ x) / len(x) + 1e-4 * jnp.eye(x.shape[1])

        def params(u: Any, factor: Any) -> Any:
            """Of coordinates in which the loss has about unit curvature."""
            columns = u.reshape(len(self.covariance), -1).T
            solve = lambda f, one: solve_triangular(f, one, lower=True, trans=1)  # noqa: E731
            w = jax.vmap(solve, in_axes=(None if factor.ndim == 2 else 0, 0))(factor, columns)
            return w.T.reshape(task.w.shape)

        def factor(x: Any) -> Any:
            ridge = jnp.atleast_2d(task.ridge(x).T)
            metric = lambda r: jnp.linalg.cholesky(self.covariance + jnp.diag(r))  # noqa: E731
            return jax.vmap(metric)(ridge) if len(ridge) > 1 else metric(ridge[0])

        def loss(u: Any, x: Any, factor: Any, train: Any) -> jax.Array:
            return task.loss(params(u, factor), x, train)

        def objective(u: Any, x: Any, factor: Any, valid: Any) -> jax.Array:
            return task.objective(params(u, factor), x, valid)

        def slope(u: Any, x: Any, factor: Any, train: Any, valid: Any) -> Any:
            by_u, by_x = jax.grad(objective, argnums=(0, 1))(u, x, factor, valid)
            inner = lambda u, x: jax.grad(loss)(u, x, factor, train)  # noqa: E731
            product = lambda q: jax.jvp(lambda u: inner(u, x), (u,), (q,))[1]  # noqa: E731
            q, _ = jax.scipy.sparse.linalg.cg(product, by_u, tol=1e-5, maxiter=200)
            return by_x - jax.vjp(lambda x: inner(u, x), x)[1](q)[0]

        self.factor, self.slope, self.objective = (
            jax.jit(factor),
            jax.jit(slope),
            jax.jit(objective),
        )
        self.loss = jax.jit(jax.value_and_grad(loss))

    def solved(self, x: np.ndarray) -> tuple[Any, Any, Any]:
        """u*, x and the metric."""
        x = jnp.asarray(np.clip(x, -30, 30), jnp.float32)
        factor = self.factor(x)

        def at(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = self.loss(jnp.asarray(u, jnp.float32), x, factor, self.task.train.arrays)
            return float(value), np.asarray(slope, np.float64)

        options = {"maxiter": 60, "gtol": 5e-6, "ftol": 1e-13, "maxls": 10}
        found = scipy.optimize.minimize(at, self.u, jac=True, method="L-BFGS-B", options=options)
        self.u, self.steps = found.x, found.nfev
        return jnp.asarray(found.x, jnp.float32), x, factor

    def __call__(self, x: np.ndarray) -> float:
        if not np.isfinite(x).all():
            return NOWHERE
        return float(self.objective(*self.solved(x), self.task.valid.arrays)) - self.minimum

    def with_slope(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """h and ∇h."""
        u, x, factor = self.solved(x)
        train, valid = self.task.train.arrays, self.task.valid.arrays
        value = float(self.objective(u, x, factor, valid)) - self.minimum
        return value, np.asarray(self.slope(u, x, factor, train, valid), np.float64)


def value_of(task: Task) -> Quadratic | Linear:
    """h - min h."""
    return Quadratic(task) if task.ridge is None else Linear(task)


def main() -> None:
    """Prints the smallest value that L-BFGS finds where no outer variable is larger than 10."""
    value = value_of(TASKS[sys.argv[1]]())
    print(f"at the start {value(value.task.x) + value.minimum:.6f}", flush=True)
    size, scale = value.task.x.size, float(value.task.x.size)

    def at(x: np.ndarray) -> tuple[float, np.ndarray]:
        # Of a size at which the minimiser's first step is of use with many variables.
        found, slope = value.with_slope(x)
        return scale * found, scale * slope

    options = {"maxiter": int(sys.argv[2]) if len(sys.argv) > 2 else 40}
    bounds = [(-10, 10)] * size
    found = scipy.optimize.minimize(
        at, np.asarray(value.task.x), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    least = found.fun / scale + value.minimum
    print(f"{least:.6f} after {found.nfev} looks: {found.message}")


if __name__ == "__main__":
    main()
