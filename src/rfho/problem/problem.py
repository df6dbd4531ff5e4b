"""The outer problem: f(λ) = E(w_T, λ) after T steps of the dynamics (eqs. 5-6 of arXiv 1703.01785)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from rfho import _tree as tree
from rfho.dynamics import AbstractDynamics
from rfho.errors import positive_int
from rfho.problem.objective import (
    Objective,
    Reading,
    as_data,
    checked_objective,
    drawn,
    is_objective,
)
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State, Step


class Problem(eqx.Module):
    """What is to be tuned: dynamics, objective, data, and how long training lasts.

    Args:
        dynamics: a `Descent`, a `Dynamics` or any `AbstractDynamics`.
        objective: E, a function ``(params, hyper, batch) -> scalar``; or a tree prefix of ``hyper``
            with such functions (or `Objective`) at its leaves: each hyperparameter then follows its
            own.
        train: what the steps see: arrays (the same full batch at every step), a `Stream`, any pure
            function of the step t = 0, 1, …, or None.
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
        ...     valid=None,
        ...     horizon=10,
        ... )
    """

    dynamics: AbstractDynamics
    objective: PyTree
    train: Any
    valid: Any
    horizon: int = eqx.field(static=True)
    fixed: PyTree
    outer: Int[Array, ""]
    offset: Int[Array, ""]
    draw: Callable[[Step], tuple[Any, Any]] | None

    def __init__(
        self,
        dynamics: AbstractDynamics,
        objective: PyTree,
        train: Any,
        valid: Any,
        horizon: int,
        *,
        fixed: PyTree = None,
        outer: Step = 0,
    ) -> None:
        if not isinstance(dynamics, AbstractDynamics):
            raise TypeError(
                f"Problem got dynamics of type {type(dynamics).__name__}, but it must be a rfho.Descent or a "
                "rfho.Dynamics"
            )
        horizon = horizon.item() if isinstance(horizon, np.integer) else horizon
        self.dynamics = dynamics
        self.objective = checked_objective(objective)
        self.train = as_data(train, "train")
        self.valid = as_data(valid, "valid")
        self.horizon = positive_int(horizon, "horizon", "Problem")
        self.fixed = fixed
        self.outer = jnp.asarray(outer, jnp.int32)
        self.offset = jnp.asarray(0, jnp.int32)
        self.draw = None

    def at(self, outer: Step) -> "Problem":
        """The same problem as it stands at outer step ``outer``: its validation batch, its draw of data."""
        outer = jnp.asarray(outer, jnp.int32)
        if self.draw is None:
            return eqx.tree_at(lambda p: p.outer, self, outer)
        drawn = self.draw(outer)
        return eqx.tree_at(
            lambda p: (p.outer, p.train, p.valid), self, (outer, *drawn), is_leaf=_is_none
        )

    def redrawn(self, draw: Callable[[Step], tuple[Any, Any]]) -> "Problem":
        """The same problem with new data at every outer step.

        Args:
            draw: a pure, traceable function ``k -> (train, valid)``; each of arrays or a `Stream`.
        """
        problem = eqx.tree_at(lambda p: p.draw, self, draw, is_leaf=_is_none)
        return problem.at(self.outer)

    def from_step(self, t: Step) -> "Problem":
        """The same problem with its steps counted from step ``t``: for runs that go on."""
        return eqx.tree_at(lambda p: p.offset, self, jnp.asarray(t, jnp.int32))

    def with_fixed(self, fixed: PyTree) -> "Problem":
        """The same problem as one of the other hyperparameters alone: ``fixed`` has None where they are."""
        return eqx.tree_at(lambda p: p.fixed, self, fixed, is_leaf=_is_none)

    def train_batch(self, t: Step) -> Batch:
        """b_t, the batch of inner step t = 0, …, T - 1."""
        return self.train(self.offset + t) if callable(self.train) else self.train

    def valid_batch(self, k: Step | None = None) -> Batch:
        """The validation batch of outer step k (this problem's own by default)."""
        return drawn(self.valid, self.outer if k is None else k)

    def init(self, hyper: Hyper) -> State:
        """s_0 = Φ_0(λ)."""
        return jax.tree.map(jnp.asarray, self.dynamics.init(self.whole(hyper)))

    def step(self, state: State, hyper: Hyper, t: Step) -> State:
        """The state after inner step t."""
        return self.dynamics.step(state, self.whole(hyper), self.train_batch(t))

    def whole(self, hyper: Hyper) -> Hyper:
        """``hyper`` with the fixed leaves put back: what the user's functions are given."""
        return hyper if self.fixed is None else eqx.combine(hyper, self.fixed)

    def evaluate(self, params: Params, hyper: Hyper) -> PyTree:
        """E(w, λ) on the current validation batch: a scalar, or a prefix of scalars as the objective is."""
        whole = self.whole(hyper)
        return jax.tree.map(
            lambda objective: self._value(objective, params, whole),
            self.objective,
            is_leaf=is_objective,
        )

    def read(self, state: State, hyper: Hyper) -> Reading:
        """The objectives at ``state`` and their derivatives by state and hyperparameters."""
        inside, rest = tree.split(state)

        def values(inside: PyTree, hyper: Hyper) -> Array:
            params = self.dynamics.output(eqx.combine(inside, rest))
            values = jax.tree.leaves(self.evaluate(params, hyper))
            return values[0] if len(values) == 1 else jnp.stack(values)

        value, vjp = jax.vjp(values, inside, hyper)
        if value.ndim == 0:
            return Reading(value, *vjp(jnp.ones_like(value)))
        return Reading(value, *jax.vmap(vjp)(jnp.eye(value.size, dtype=value.dtype)))

    @property
    def several_objectives(self) -> bool:
        """Whether hyperparameters follow objectives of their own."""
        return len(jax.tree.leaves(self.objective, is_leaf=is_objective)) > 1

    def objective_of(self, hyper: Hyper) -> PyTree:
        """For each leaf of ``hyper`` the index of the objective that it follows.

        Raises:
            ValueError: ``objective`` is not a tree prefix of ``hyper``.
        """
        leaves, structure = jax.tree.flatten(self.objective, is_leaf=is_objective)
        indices = jax.tree.unflatten(structure, range(len(leaves)))
        whole = self.whole(hyper)
        try:
            spread = jax.tree.broadcast(indices, whole)
        except ValueError as error:
            raise ValueError(
                f"objective has structure {structure}, but it must be a function or a tree prefix of hyper, "
                f"which has structure {jax.tree.structure(whole)}"
            ) from error
        kept = jax.tree.map(lambda leaf: leaf is not None, hyper, is_leaf=_is_none)
        return jax.tree.map(lambda keep, index: index if keep else None, kept, spread)

    def values(self, value: Array) -> PyTree:
        """The objectives' values of a `Reading` in the structure of ``objective``."""
        leaves, structure = jax.tree.flatten(self.objective, is_leaf=is_objective)
        return value if len(leaves) == 1 else jax.tree.unflatten(structure, list(value))

    def _value(self, objective: Any, params: Params, whole: Hyper) -> Scalar:
        if isinstance(objective, Objective):
            return objective.function(params, whole, drawn(objective.data, self.outer))
        return objective(params, whole, self.valid_batch())


def select(problem: Problem, hyper: Hyper, stacked: PyTree) -> PyTree:
    """The hypergradient of each leaf's own objective, from leaves stacked over the objectives (if several)."""
    if not problem.several_objectives:
        return stacked
    return jax.tree.map(lambda index, leaf: leaf[index], problem.objective_of(hyper), stacked)


def over_objectives(problem: Problem, pull_back: Callable[..., Any]) -> Callable[..., Any]:
    """``pull_back(adjoint, …)`` for one adjoint per objective: itself for one, a vmap for several."""
    if not problem.several_objectives:
        return pull_back
    return lambda adjoint, *others: jax.vmap(lambda a: pull_back(a, *others))(adjoint)


def _is_none(leaf: Any) -> bool:
    return leaf is None
