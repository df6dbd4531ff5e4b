"""Everything that can be known to be wrong before anything runs.

One trace of a derivative, of the first state, one step and one read-out, finds wrong structures, shapes and
dtypes, and hyperparameters that reach nothing. Each finding names the leaf and the remedy.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rfho._programs import trees as tree
from rfho._programs.liveness import inputs_used
from rfho.dynamics import AbstractDescent
from rfho.problem.first_use import check_scalar, first_use
from rfho.problem.moment import AbstractMoment
from rfho.problem.objective import is_objective
from rfho.typing import Hyper, PyTree, State


def validate(problem: AbstractMoment, hyper: Hyper, *, reaches_start: bool = True) -> None:
    """Refuses a problem and hyperparameters that do not fit each other.

    It reads shapes alone, so that arrays may be abstract or traced; called inside a traced function it costs
    one trace of the user's functions for each program.

    Args:
        problem: as it stands at an outer step.
        hyper: the learned leaves of λ.
        reaches_start: whether what s_0 alone depends on has a derivative.

    Raises:
        TypeError: a step changes the structure, shape or dtype of the state; loss or objective is not a
            floating-point scalar; a function of the user fails when it is traced.
        ValueError: a leaf of ``hyper`` reaches nothing; ``objective`` is no prefix of it.
    """
    if not isinstance(problem, AbstractMoment):
        raise TypeError(f"got a {type(problem).__name__} where a rfho.Problem was expected")
    problem.objective_of(hyper)
    idle = _without_effect(lambda h: _after_the_start(problem, h), hyper)
    if not idle:
        return
    only_start = set(idle) - set(_without_effect(lambda h: tree.inexact(problem.init(h)), hyper))
    if only_start and not reaches_start:
        raise ValueError(
            f"{', '.join(sorted(only_start))} reaches the initial state alone (as a learned init does, or a rate "
            "that optax.inject_hyperparams puts there), and this method does not go back to it: it would be "
            "changed without any effect. Use it in a step or in the objective, mark it rfho.Fixed(), or use "
            "ReverseHyperGradient or ForwardHyperGradient"
        )
    nowhere = [path for path in idle if path not in only_start]
    if nowhere:
        raise ValueError(
            f"{', '.join(nowhere)} reaches neither the initial state, nor a step, nor the objective, so its "
            "hypergradient would be zero for ever: use it, look for a stop_gradient or a cast to int on its "
            "way, or mark it rfho.Fixed()"
        )


def without_effect(problem: AbstractMoment, hyper: Hyper) -> list[str]:
    """Paths of the leaves of ``hyper`` on which neither s_0, nor a step, nor the objective depends."""

    def everything(hyper: Hyper) -> PyTree:
        return tree.inexact(problem.init(hyper)), _after_the_start(problem, hyper)

    return _without_effect(everything, hyper)


def _without_effect(function: Any, hyper: Hyper) -> list[str]:
    def tangents(directions: Hyper) -> PyTree:
        return jax.jvp(function, (hyper,), (directions,))[1]

    try:
        (used,) = inputs_used(tangents, hyper)
    except (NotImplementedError, TypeError, ValueError):
        # A step may have no second derivative, which not every method asks for; what else is wrong is said
        # by the step itself.
        (used,) = inputs_used(function, hyper)
    return [
        tree.path_of(path, "hyper")
        for path, use in jax.tree_util.tree_leaves_with_path(used)
        if not use
    ]


def _after_the_start(problem: AbstractMoment, hyper: Hyper) -> PyTree:
    """A step from s_0, taken as given, and what is read after it; all of it checked on the way."""
    whole = problem.whole(hyper)
    with first_use("init", hyper=whole):
        state = jax.lax.stop_gradient(problem.init(hyper))
    with first_use("train", hyper=whole):
        problem.train_batch(_t())
    after = _step(problem, hyper, state)
    _check_same(state, after)
    with first_use("output", hyper=whole):
        params = problem.dynamics.output(after)
    with first_use("valid", hyper=whole):
        problem.valid_batch()
    with first_use("objective(params, hyper, batch)", hyper=whole):
        values = problem.evaluate(params, hyper)
    named, structure = jax.tree.flatten_with_path(problem.objective, is_leaf=is_objective)
    for (path, _), value in zip(named, structure.flatten_up_to(values), strict=True):
        check_scalar(value, tree.path_of(path, "objective"))
    return tree.inexact((after, values))


def _step(problem: AbstractMoment, hyper: Hyper, state: State) -> State:
    whole = problem.whole(hyper)
    try:
        with first_use("a step", hyper=whole):
            return problem.step(state, hyper, _t())
    except TypeError:
        _ask_loss(problem, hyper, state)  # says it better if it is the loss that failed
        raise


def _ask_loss(problem: AbstractMoment, hyper: Hyper, state: State) -> None:
    dynamics, whole = problem.dynamics, problem.whole(hyper)
    if not isinstance(dynamics, AbstractDescent):
        return
    batch = problem.train_batch(_t())
    with first_use("loss", hyper=whole):
        value = dynamics.loss(state.params, whole, batch)
    check_scalar(value, "loss")


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


def _t() -> jax.Array:
    return jnp.zeros((), jnp.int32)
