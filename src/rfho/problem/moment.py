"""A problem as it stands at one outer step: what engines and methods are given.

    s_0 = Φ_0(λ)    s_{t+1} = Φ(s_t, λ, b_{t0+t})    E_k(w_T, λ)

A `Problem` says what is tuned; what a run adds to it (the outer step k, where t counts from, the leaves
of λ that are not learned, the state that training goes on from) is a `Moment`, made once per outer step.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rfho._programs import trees as tree
from rfho.domains.space import Rest
from rfho.dynamics import AbstractDynamics
from rfho.dynamics.model import whole_model
from rfho.problem.fresh import drawn
from rfho.problem.objective import Objective, Reading, is_objective
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State, Step


class AbstractMoment(eqx.Module):
    """What methods and engines read of a problem; `Problem` is its own first moment.

    Attributes:
        dynamics, objective, train, valid, horizon: those of the problem.
        rest: the leaves of λ that are not learned; None if all of them are.
        k: the outer step.
        t0: the step from which t counts.
        start: the state from which training goes on; None if it begins at Φ_0(λ).
    """

    dynamics: eqx.AbstractVar[AbstractDynamics]
    objective: eqx.AbstractVar[PyTree]
    train: eqx.AbstractVar[Any]
    valid: eqx.AbstractVar[Any]
    horizon: eqx.AbstractVar[int]
    rest: eqx.AbstractVar[Rest | None]
    k: eqx.AbstractVar[Step]
    t0: eqx.AbstractVar[Step]
    start: eqx.AbstractVar[State]

    def at(self, k: Step, rest: Rest | None = None) -> "Moment":
        """The same problem as it stands at outer step ``k``, with its data drawn.

        Args:
            k: the outer step, which validation data and `Fresh` data may depend on.
            rest: the leaves of λ that are not learned, as `rfho.domains.Space` splits them off.
        """
        k = tree.known(k, np.int32) if isinstance(k, int) else jnp.asarray(k, jnp.int32)
        rest = self.rest if rest is None else rest
        return self._moment(train=drawn(self.train, k), k=k, rest=rest)

    def later(self, t: Step) -> "Moment":
        """The same, with its steps counted from ``t`` steps later on."""
        t = jnp.asarray(t, jnp.int32)
        return self._moment(t0=t if isinstance(self.t0, int) and self.t0 == 0 else self.t0 + t)

    def going_on(self, state: State) -> "Moment":
        """The same, with training that goes on from ``state``, which is taken as given."""
        return self._moment(start=state)

    def validated_on(self, batch: Batch) -> "Moment":
        """The same, with ``batch`` as its validation data."""
        return self._moment(valid=batch)

    def validated_in(self, cast: Callable[[Batch], Batch]) -> "Moment":
        """The same, whose objectives are given ``cast`` of their data of this outer step."""

        def own(objective: Any) -> Any:
            if not isinstance(objective, Objective):
                return objective
            data = cast(self._of_this_step(objective.data))
            return eqx.tree_at(lambda one: one.data, objective, data)

        objectives = jax.tree.map(own, self.objective, is_leaf=is_objective)
        return self._moment(objective=objectives, valid=cast(self.valid_batch()))

    def under(self, dynamics: AbstractDynamics, horizon: int | None = None) -> "Moment":
        """The same under other dynamics, whose states are of the same structure; of its first steps alone."""
        return self._moment(dynamics=dynamics, horizon=self.horizon if horizon is None else horizon)

    def train_batch(self, t: Step) -> Batch:
        """b_t, the batch of inner step t = 0, …, T - 1."""
        train = drawn(self.train, self.k)
        return train(self.t0 + t) if callable(train) else train

    def valid_batch(self) -> Batch:
        """The validation data of this outer step."""
        return self._of_this_step(self.valid)

    def init(self, hyper: Hyper) -> State:
        """s_0 = Φ_0(λ), or the state that training goes on from."""
        if self.start is not None:
            return self.start
        return jax.tree.map(jnp.asarray, self.dynamics.init(self.whole(hyper)))

    def step(self, state: State, hyper: Hyper, t: Step) -> State:
        """The state after inner step t."""
        return self.dynamics.step(state, self.whole(hyper), self.train_batch(t))

    def whole(self, hyper: Hyper) -> Hyper:
        """``hyper`` with the leaves that are not learned: what the user's functions are given."""
        return hyper if self.rest is None else self.rest.join(hyper)

    def evaluate(self, params: Params, hyper: Hyper) -> PyTree:
        """E(w, λ) on this step's validation batch: a scalar, or a prefix of scalars as the objective is."""
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
        kept = jax.tree.map(lambda leaf: leaf is not None, hyper, is_leaf=tree.is_none)
        return jax.tree.map(lambda keep, index: index if keep else None, kept, spread)

    def values(self, value: Array) -> PyTree:
        """The objectives' values of a `Reading` in the structure of ``objective``."""
        leaves, structure = jax.tree.flatten(self.objective, is_leaf=is_objective)
        return value if len(leaves) == 1 else jax.tree.unflatten(structure, list(value))

    def _value(self, objective: Any, params: Params, whole: Hyper) -> Scalar:
        params = whole_model(params)
        if isinstance(objective, Objective):
            return objective.function(params, whole, self._of_this_step(objective.data))
        return objective(params, whole, self.valid_batch())

    def _of_this_step(self, data: Any) -> Batch:
        data = drawn(data, self.k)
        return data(self.k) if callable(data) else data

    def _moment(self, **changes: Any) -> "Moment":
        fields = ("dynamics", "objective", "train", "valid", "horizon", "rest", "k", "t0", "start")
        return Moment(**{name: getattr(self, name) for name in fields} | changes)


class Moment(AbstractMoment):
    """A problem at outer step ``k``, with ``t`` counted from ``t0``; see `AbstractMoment`."""

    dynamics: AbstractDynamics
    objective: PyTree
    train: Any
    valid: Any
    horizon: int = eqx.field(static=True)
    rest: Rest | None
    k: Step
    t0: Step
    start: State


def select(problem: AbstractMoment, hyper: Hyper, stacked: PyTree) -> PyTree:
    """The hypergradient of each leaf's own objective, from leaves stacked over the objectives (if several)."""
    if not problem.several_objectives:
        return stacked
    return jax.tree.map(lambda index, leaf: leaf[index], problem.objective_of(hyper), stacked)


def over_objectives(problem: AbstractMoment, pull_back: Callable[..., Any]) -> Callable[..., Any]:
    """``pull_back(adjoint, …)`` for one adjoint per objective: itself for one, a vmap for several."""
    if not problem.several_objectives:
        return pull_back
    return lambda adjoint, *others: jax.vmap(lambda a: pull_back(a, *others))(adjoint)
