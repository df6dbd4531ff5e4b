"""The outer problem: f(λ) = E(w_T, λ) after T steps of the dynamics (eqs. 5-6 of arXiv 1703.01785)."""

from typing import Any

import equinox as eqx

from rfho.domains.space import Rest
from rfho.dynamics import AbstractDynamics
from rfho.errors import positive_int
from rfho.problem.moment import AbstractMoment
from rfho.problem.objective import as_data, checked_objective
from rfho.typing import PyTree, State, Step


class Problem(AbstractMoment):
    """What is to be tuned: dynamics, objective, data, and how long training lasts.

    Args:
        dynamics: a `Descent`, a `Dynamics` or any `AbstractDynamics`.
        objective: E, a function ``(params, hyper, batch) -> scalar``; or a tree prefix of ``hyper``
            with such functions (or `Objective`) at its leaves: each hyperparameter then follows its
            own.
        train: what the steps see: arrays (the same full batch at every step), a `Stream`, any pure
            function of the step t = 0, 1, …, `Fresh` for any of these anew at each outer step, or None.
        valid: what the objective sees; a function is one of the outer step k, so that validation
            batches may be drawn anew.
        horizon: T, the number of inner steps, an int >= 1.

    Raises:
        TypeError, ValueError: an argument is not of its kind; the message says which and how to
            mend it.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: jnp.mean((w - batch) ** 2),
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     init=jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics,
        ...     lambda w, hyper, batch: (w - 2) ** 2,
        ...     train=jnp.ones(4),
        ...     horizon=10,
        ... )
    """

    dynamics: AbstractDynamics
    objective: PyTree
    train: Any
    valid: Any
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        dynamics: AbstractDynamics,
        objective: PyTree,
        train: Any = None,
        valid: Any = None,
        horizon: int | None = None,
    ) -> None:
        if not isinstance(dynamics, AbstractDynamics):
            raise TypeError(
                f"Problem got dynamics of type {type(dynamics).__name__}, but it must be a rfho.Descent or a "
                "rfho.Dynamics"
            )
        if horizon is None:
            raise TypeError("Problem needs horizon, the number of inner steps: write horizon=100")
        self.dynamics = dynamics
        self.objective = checked_objective(objective)
        self.train = as_data(train, "train")
        self.valid = as_data(valid, "valid")
        self.horizon = positive_int(horizon, "horizon", "Problem")

    @property
    def rest(self) -> Rest | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All of λ is learned."""
        return None

    @property
    def k(self) -> Step:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Outer step 0."""
        return 0

    @property
    def t0(self) -> Step:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps count from 0."""
        return 0

    @property
    def start(self) -> State:
        """Training begins at Φ_0(λ)."""
        return None
