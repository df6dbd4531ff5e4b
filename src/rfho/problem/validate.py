"""Everything that can be known to be wrong before anything runs.

Abstract evaluation of one step and one read-out finds wrong structures, shapes and dtypes; the
jaxpr of their derivative finds hyperparameters that reach nothing. Each finding names the leaf and
the remedy.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rfho import _tree as tree
from rfho._programs.liveness import inputs_used
from rfho.dynamics import Descent
from rfho.problem.problem import Problem
from rfho.typing import Hyper, PyTree


def validate(problem: Problem, hyper: Hyper) -> Hyper:
    """``hyper`` as inexact arrays, once the problem is known to fit it.

    Raises:
        TypeError: a leaf of ``hyper`` is no floating-point array; a step changes the structure,
            shape or dtype of the state; loss or objective is not a floating-point scalar.
        ValueError: a leaf of ``hyper`` is not finite or reaches nothing; ``objective`` is no prefix
            of it.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"got a {type(problem).__name__} where a rfho.Problem was expected")
    hyper = tree.as_hyper(hyper)
    problem.objective_of(hyper)
    state = jax.eval_shape(problem.init, hyper)
    _check_loss(problem, hyper, state)
    _check_same(state, jax.eval_shape(problem.step, state, hyper, _t()))
    _check_objective(problem, hyper, state)
    _check_effect(problem, hyper)
    return hyper


def without_effect(problem: Problem, hyper: Hyper) -> list[str]:
    """Paths of the leaves of ``hyper`` on which neither s_0, nor a step, nor the objective depends."""

    def everything(hyper: Hyper) -> PyTree:
        state = problem.init(hyper)
        after = problem.step(state, hyper, _t())
        read = problem.evaluate(problem.dynamics.output(after), hyper)
        return tree.inexact((state, after, read))

    def tangents(directions: Hyper) -> PyTree:
        return jax.jvp(everything, (hyper,), (directions,))[1]

    (used,) = inputs_used(tangents, hyper)
    return [
        tree.path_of(path, "hyper")
        for path, use in jax.tree_util.tree_leaves_with_path(used)
        if not use
    ]


def _check_effect(problem: Problem, hyper: Hyper) -> None:
    idle = without_effect(problem, hyper)
    if idle:
        raise ValueError(
            f"{', '.join(idle)} reaches neither the initial state, nor a step, nor the objective, so its "
            "hypergradient would be zero for ever: use it, look for a stop_gradient or a cast to int on its "
            "way, or mark it rfho.Fixed()"
        )


def _check_same(before: PyTree, after: PyTree) -> None:
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise TypeError(
            f"a step turned a state of structure {jax.tree.structure(before)} into one of "
            f"{jax.tree.structure(after)}, but every state must have the structure of the first"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, leaf), changed in pairs:
        if leaf.shape != changed.shape or leaf.dtype != changed.dtype:
            raise TypeError(
                f"a step turned {tree.path_of(path, 'state')} from {leaf.dtype}{list(leaf.shape)} into "
                f"{changed.dtype}{list(changed.shape)}, but shapes and dtypes must stay: give the initial "
                "state, the data and the hyperparameters one dtype"
            )


def _check_objective(problem: Problem, hyper: Hyper, state: PyTree) -> None:
    def read(state: PyTree, hyper: Hyper) -> PyTree:
        return problem.evaluate(problem.dynamics.output(state), hyper)

    values = jax.eval_shape(read, state, hyper)
    for path, value in jax.tree_util.tree_leaves_with_path(values):
        _check_scalar(value, tree.path_of(path, "objective"))


def _check_loss(problem: Problem, hyper: Hyper, state: PyTree) -> None:
    dynamics = problem.dynamics
    if isinstance(dynamics, Descent):
        loss = lambda w, h: dynamics.loss(w, problem.whole(h), problem.train_batch(_t()))  # noqa: E731
        _check_scalar(jax.eval_shape(loss, dynamics.output(state), hyper), "loss")


def _check_scalar(value: Any, where: str) -> None:
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{where} returned {dtype}{list(shape)}, but it must return a floating-point scalar: take a mean"
        )


def _t() -> jax.Array:
    return jnp.zeros((), jnp.int32)
