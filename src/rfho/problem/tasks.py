"""Many inner problems at once: episodes, folds, seeds (arXiv 1806.04910, eq. 2).

f(λ) = 1/n Σ_i E_i(w_T^i, λ),    every task i trained by the same dynamics on its own data
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.dynamics import AbstractDynamics, Keep, Way
from rfho.problem.objective import Objective, is_objective
from rfho.problem.problem import Problem
from rfho.problem.stream import common_length
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State, Step


class TaskDynamics(AbstractDynamics):
    """The same dynamics for ``count`` tasks side by side: every leaf of the state has a leading task axis."""

    single: AbstractDynamics
    count: int = eqx.field(static=True)

    def init(self, hyper: Hyper) -> State:
        """s_0, once for each task."""
        repeat = lambda leaf: jnp.broadcast_to(leaf, (self.count, *jnp.shape(leaf)))  # noqa: E731
        return jax.tree.map(repeat, self.single.init(hyper))

    def step(self, state: State, hyper: Hyper, batch: Batch) -> State:
        """One step of every task."""
        return jax.vmap(self.single.step, in_axes=(0, None, 0))(state, hyper, batch)

    def output(self, state: State) -> Params:
        """Parameters with a leading task axis."""
        return jax.vmap(self.single.output)(state)

    def way(self, keep: Keep) -> Way:
        """The way of the single dynamics under vmap; cotangents of λ are summed over tasks."""
        way = self.single.way(keep)

        def pull_back(
            adjoint: PyTree, state: State, memory: PyTree, hyper: Hyper, batch: Batch
        ) -> tuple[PyTree, PyTree]:
            one = jax.vmap(way.pull_back, in_axes=(0, 0, 0, None, 0))
            adjoint, by_task = one(adjoint, state, memory, hyper, batch)
            return adjoint, jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), by_task)

        each = lambda function: jax.vmap(function, in_axes=(0, None, 0))  # noqa: E731
        invert = None if way.invert is None else each(way.invert)
        return Way(each(way.remember), pull_back, invert)


def over_tasks(
    problem: Problem, tasks: tuple[Any, Any] | Callable[[Step], tuple[Any, Any]]
) -> Problem:
    """The problem whose state has a leading task axis and whose objective is the mean over tasks.

    Args:
        problem: what one task is: its dynamics, objective and horizon. Its own data are not used.
        tasks: the pair ``(train, valid)``, each with a leading task axis on all of its arrays (a
            `Stream` per task is one made under `jax.vmap`); or a pure function of the outer step k
            that returns such
            a pair: fresh episodes at each outer step.

    Returns:
        A `Problem`; all methods work on it.

    Raises:
        ValueError: the task axes differ, or there is none.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def square(w, hyper, batch):
        ...     return jnp.mean((w - batch) ** 2)
        >>> dynamics = rfho.Descent(
        ...     square, lambda hyper: optax.sgd(hyper["lr"]), init=jnp.zeros(())
        ... )
        >>> one = rfho.Problem(dynamics, square, train=jnp.zeros(4), valid=jnp.zeros(2), horizon=5)
        >>> many = rfho.over_tasks(one, (jnp.ones((3, 4)), jnp.ones((3, 2))))
        >>> rfho.hyper_gradient(many, {"lr": 0.1}).aux.params.shape
        (3,)
    """
    draw = tasks if callable(tasks) else None
    train, valid = tasks(problem.outer) if callable(tasks) else tasks
    count = common_length((train, valid), "tasks")
    many = Problem(
        TaskDynamics(problem.dynamics, count),
        jax.tree.map(_mean_over_tasks, problem.objective, is_leaf=is_objective),
        train=TaskBatches(train),
        valid=valid,
        horizon=problem.horizon,
        fixed=problem.fixed,
        outer=problem.outer,
    )
    if draw is None:
        return many
    return many.redrawn(lambda k: _batches(draw(k)))


class TaskBatches(eqx.Module):
    """The batches of step t of all tasks: ``train`` has a leading task axis."""

    train: Any

    def __call__(self, t: Step) -> Batch:
        """A batch with a leading task axis."""
        return jax.vmap(lambda data: data(t) if callable(data) else data)(self.train)


def _batches(pair: tuple[Any, Any]) -> tuple[TaskBatches, Any]:
    train, valid = pair
    return TaskBatches(train), valid


def _mean_over_tasks(objective: Any) -> Any:
    if isinstance(objective, Objective):
        return Objective(_mean_over_tasks(objective.function), objective.data)

    def mean(params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        each = jax.vmap(lambda w, b: objective(w, hyper, b))
        return jnp.mean(each(params, batch))

    return mean
