"""Many inner problems at once: episodes, folds, seeds (arXiv 1806.04910, eq. 2).

f(λ) = 1/n Σ_i E_i(w_T^i, λ),    every task i trained by the same dynamics on its own data
"""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.dynamics import AbstractDynamics, Keep, Way
from rfho.dynamics.initial import Given
from rfho.problem.fresh import Fresh
from rfho.problem.objective import Objective, is_objective
from rfho.problem.problem import Problem
from rfho.problem.stream import common_length
from rfho.typing import Batch, Hyper, Loss, Params, PyTree, Scalar, State, Step


class TaskDynamics(AbstractDynamics):
    """The same dynamics for ``count`` tasks side by side: every leaf of the state has a leading task axis.

    Attributes:
        single: the dynamics of one task.
        count: how many tasks there are.
        starts: initial parameters with a leading task axis; None if all tasks start alike.
    """

    single: AbstractDynamics
    count: int = eqx.field(static=True)
    starts: PyTree = None

    def init(self, hyper: Hyper) -> State:
        """s_0 of each task."""
        if self.starts is not None:
            return jax.vmap(lambda start: _started(self.single, start).init(hyper))(self.starts)
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
    problem: Problem,
    tasks: tuple[Any, Any] | Callable[[Step], tuple[Any, Any]],
    *,
    starts: PyTree = None,
) -> Problem:
    """The problem whose state has a leading task axis and whose objective is the mean over tasks.

    Args:
        problem: what one task is: its dynamics, objective and horizon. Its own data are not used.
        tasks: the pair ``(train, valid)``, each with a leading task axis on all of its arrays (a
            `Stream` per task is one made under `jax.vmap`); or a pure function of the outer step k
            that returns such a pair: fresh episodes at each outer step.
        starts: initial parameters with a leading task axis: one seed for each task. An ``init`` of the
            dynamics that is given as arrays, and has that axis on all of them, is taken for this too.

    Returns:
        A `Problem`; all methods work on it.

    Raises:
        TypeError: ``tasks`` is, or gives, no pair.
        ValueError: the task axes differ, or there is none.

    Warns:
        UserWarning: ``init`` is taken for one start of each task.

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
    drawn = tasks if callable(tasks) else None
    like = tasks if drawn is None else jax.eval_shape(drawn, 0)
    if not (isinstance(like, tuple) and len(like) == 2):
        given = "gives" if drawn else "is"
        raise TypeError(
            f"tasks {given} a {type(like).__name__}, but it must be the pair (train, valid), each with a leading "
            "task axis on all of its arrays, or a function of the outer step that gives such a pair"
        )
    count = common_length(like, "tasks")
    starts = _own_starts(problem.dynamics, count) if starts is None else starts
    if starts is not None and common_length(starts, "starts") != count:
        raise ValueError(
            f"starts is for {common_length(starts, 'starts')} tasks, but there are {count}: give one for each"
        )
    return Problem(
        TaskDynamics(problem.dynamics, count, starts),
        jax.tree.map(_MeanOverTasks.of, problem.objective, is_leaf=is_objective),
        train=TaskBatches(tasks[0]) if drawn is None else Fresh(_Draw(drawn, training=True)),  # type: ignore[index]
        valid=tasks[1] if drawn is None else _Draw(drawn, training=False),  # type: ignore[index]
        horizon=problem.horizon,
    )


class TaskBatches(eqx.Module):
    """The batches of step t of all tasks: ``train`` has a leading task axis."""

    train: Any

    def __call__(self, t: Step) -> Batch:
        """A batch with a leading task axis."""
        return jax.vmap(lambda data: data(t) if callable(data) else data)(self.train)


class _Draw(eqx.Module):
    """The training or the validation part of what ``tasks`` gives for outer step k."""

    tasks: Callable[[Step], tuple[Any, Any]]
    training: bool = eqx.field(static=True)

    def __call__(self, k: Step) -> Any:
        train, valid = self.tasks(k)
        return TaskBatches(train) if self.training else valid


class _MeanOverTasks(eqx.Module):
    """1/n Σ_i E(w^i, λ), of parameters and batch with a leading task axis."""

    objective: Loss

    @staticmethod
    def of(objective: Any) -> Any:
        """The mean of a function, or of an `Objective`."""
        if isinstance(objective, Objective):
            return Objective(_MeanOverTasks(objective.function), objective.data)
        return _MeanOverTasks(objective)

    def __call__(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        # A model has functions beside its arrays.
        each = eqx.filter_vmap(lambda w, b: self.objective(w, hyper, b))
        return jnp.mean(each(params, batch))


def _started(dynamics: AbstractDynamics, start: Params) -> AbstractDynamics:
    """``dynamics`` with other initial parameters.

    Raises:
        TypeError: they do not say where they start.
    """
    if not hasattr(dynamics, "_init"):
        raise TypeError(
            f"starts is given for {type(dynamics).__name__}, which has no initial parameters of its own: build "
            "the start into its init"
        )
    return eqx.tree_at(lambda d: d._init, dynamics, Given(start))


def _own_starts(dynamics: AbstractDynamics, count: int) -> PyTree:
    """The initial parameters of ``dynamics`` if they are arrays with a leading axis of ``count``."""
    init = getattr(dynamics, "_init", None)
    if not isinstance(init, Given):
        return None
    leaves = jax.tree.leaves(init.params)
    if not all(jnp.ndim(leaf) and jnp.shape(leaf)[0] == count for leaf in leaves):
        return None
    warnings.warn(
        f"init has a leading axis of {count} on all of its arrays, as many as there are tasks: each task "
        "starts from its own part. For one start of that shape for all, give init as a function of hyper",
        stacklevel=3,
    )
    return init.params
