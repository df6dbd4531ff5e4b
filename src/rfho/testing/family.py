"""The problems on which methods are tried: least squares, small, smooth and strongly convex."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from rfho import Descent, Problem
from rfho.checks import derivative
from rfho.dynamics import AbstractDynamics

Settings = Callable[[Any], dict[str, Any]]
"""From λ to what the dynamics are set to, by name."""

Train = Callable[[Callable[..., Any], Callable[..., Any], Settings], AbstractDynamics]
"""Makes dynamics of a loss, a function ``hyper -> params`` for the start, and the `Settings`."""

SETTINGS = {"rate": 0.2, "momentum": 0.5}
_START = np.array([0.5, -1.0, 0.2])


def gradient_descent(
    loss: Callable[..., Any], init: Callable[..., Any], settings: Settings
) -> AbstractDynamics:
    """Momentum descent with the settings ``rate`` and ``momentum``."""

    def optim(hyper: Any) -> optax.GradientTransformation:
        return optax.sgd(settings(hyper)["rate"], settings(hyper)["momentum"])

    return Descent(loss, optim, init)


class Family(NamedTuple):
    """The problems for one method.

    Attributes:
        train: makes the dynamics.
        settings: the hyperparameters that it reads.
        horizon: T.
        learn_start: whether the initial parameters are a hyperparameter.
    """

    train: Train
    settings: dict[str, float]
    horizon: int
    learn_start: bool = True

    def hyper(self) -> dict[str, Any]:
        """λ: the settings, and one leaf for each other way into the objective."""
        settings = {name: jnp.asarray(float(value)) for name, value in self.settings.items()}
        start = {"start": jnp.asarray(_START)} if self.learn_start else {}
        return {
            **settings,
            **start,
            "penalty": jnp.array([0.3, 0.2, 0.4]),
            "nested": (jnp.asarray(0.3), {"slope": jnp.asarray(-0.2)}),
            "direct": jnp.asarray(0.7),
        }

    def problem(self, objective: Any = None) -> Problem:
        """All hyperparameters, one objective."""

        def init(hyper: Any) -> Any:
            fixed = jnp.asarray(_START, hyper["direct"].dtype)
            return 1.0 * hyper.get("start", fixed)

        dynamics = self.train(_loss, init, lambda hyper: hyper)
        objective = _misfit if objective is None else objective
        return Problem(dynamics, objective, _data(0), _data(1), self.horizon)

    def several(self) -> Problem:
        """The same, where every other hyperparameter follows an objective of its own."""
        owners = self.own_objectives().items()
        owner = {name: objective for objective, names in owners for name in names}
        return self.problem(owner)

    def own_objectives(self) -> dict[Callable[..., Any], list[str]]:
        """The objectives of `several`, and who follows them."""
        names = sorted(self.hyper())
        return {_misfit: names[::2], _size: names[1::2]}

    def single(self) -> tuple[Problem, Any]:
        """The same in float32."""
        return jax.tree.map(_single, (self.problem(), self.hyper()))

    def smallest(self) -> tuple[Problem, Any]:
        """One parameter, one bare number for λ, one step, no data."""
        fixed = {name: jnp.asarray(float(value)) for name, value in self.settings.items()}

        # The settings are constants here: λ is the place of the minimum alone.
        dynamics = self.train(
            lambda w, hyper, batch: (w - hyper) ** 2,
            lambda hyper: jnp.zeros_like(hyper),
            lambda hyper: fixed,
        )
        problem = Problem(dynamics, lambda w, hyper, batch: w**2, None, None, horizon=1)
        return problem, jnp.asarray(0.6)

    def reference(self, problem: Problem, hyper: Any) -> tuple[Any, Any]:
        """f(λ) by plain training, and ∇f by its finite differences, all coordinates at once."""
        flat, unravel = ravel_pytree(hyper)

        def moved(h: float) -> Any:
            return _values(problem, jax.vmap(unravel)(flat + h * np.eye(flat.size)))

        slopes = derivative(moved, float(jnp.finfo(flat.dtype).eps), step=0.01).value
        return moved(0.0)[0], unravel(jnp.asarray(slopes))


@eqx.filter_jit
def _values(problem: Problem, points: Any) -> Any:
    def value(hyper: Any) -> Any:
        def step(state: Any, t: Any) -> tuple[Any, None]:
            return problem.step(state, hyper, t), None

        state, _ = jax.lax.scan(step, problem.init(hyper), jnp.arange(problem.horizon))
        return problem.evaluate(problem.dynamics.output(state), hyper)

    return jax.vmap(value)(points)


def _loss(w: Any, hyper: Any, batch: Any) -> Any:
    x, y = batch
    offset, tilt = hyper["nested"]
    residual = x @ w - y - offset - tilt["slope"] * x[:, 0]
    return jnp.mean(residual**2) / 2 + jnp.sum(hyper["penalty"] * w**2) / 2


def _misfit(w: Any, hyper: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.mean((x @ w - y) ** 2) + hyper["direct"] ** 2 * jnp.sum(jnp.sin(w))


def _size(w: Any, hyper: Any, batch: Any) -> Any:
    return jnp.sum(jnp.cos(w)) * (1 + hyper["direct"])


def _data(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 3))
    return jnp.asarray(x), jnp.asarray(x @ [1.0, -0.5, 0.3] + 0.1 * rng.normal(size=6))


def _single(leaf: Any) -> Any:
    wide = eqx.is_array(leaf) and leaf.dtype == jnp.float64
    return leaf.astype(jnp.float32) if wide else leaf
