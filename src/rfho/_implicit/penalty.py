r"""Training on a loss that also asks for a small objective: runs that a penalty pulls apart.

.. math:: y \leftarrow \text{the optimiser's step on } \partial_w L(y) + \tfrac1\sigma \partial_w E(y), \quad
          h_\sigma = \partial_\lambda E(y) + \sigma\,(\partial_\lambda L(y) - \partial_\lambda L(z))

(arXiv 2301.10945). Nothing here takes a second derivative.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rfho._implicit.condition import loss_of, update_of
from rfho._programs import trees as tree
from rfho._programs.liveness import inputs_used
from rfho.dynamics import Variables
from rfho.problem.moment import AbstractMoment, select
from rfho.problem.objective import is_objective
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State


class Slopes(NamedTuple):
    """The derivatives of L, or of E, at one w on one batch."""

    by_params: PyTree
    by_hyper: Hyper


class Difference(NamedTuple):
    """h_σ of each leaf's own objective, how far the run under σ is from its end, and from the other run's end.

    Attributes:
        hypergradient: h_σ.
        residual: ‖σ ∂_wL(y) + ∂_wE(y)‖ / ‖∂_wE(y)‖.
        lag: ‖σ (∂_wL(y) - ∂_wL(z)) + ∂_wE(y)‖ / ‖∂_wE(y)‖: what both runs lag behind alike is not in it.
    """

    hypergradient: Hyper
    residual: Scalar
    lag: Scalar


def slopes_of(problem: AbstractMoment, hyper: Hyper, params: Params, batch: Batch) -> Slopes:
    """The derivatives of the inner loss by parameters and hyperparameters."""
    loss = loss_of(problem.dynamics)
    whole_loss = lambda w, h: loss(w, problem.whole(h), batch)  # noqa: E731
    return Slopes(*jax.grad(whole_loss, argnums=(0, 1))(params, hyper))


def pulled_on(
    problem: AbstractMoment, hyper: Hyper, run: State, *, batch: Batch, penalty: Scalar | float
) -> State:
    """One step of a penalised run: the optimiser's, on ∂_wL + ∂_wE / σ; of each objective's own run."""

    def one(state: State, own: Array | None) -> State:
        _, by_params, _ = read_own(problem, hyper, state, own=own)
        slope = slopes_of(problem, hyper, state.params, batch).by_params
        gradient = tree.add(slope, tree.scale(1 / penalty, by_params))
        update = update_of(problem.dynamics, "FirstOrderHyperGradient")
        return update(state, gradient, problem.whole(hyper))

    return each(problem, one, run)


def difference(
    problem: AbstractMoment,
    hyper: Hyper,
    run: State,
    *,
    batch: Batch,
    penalty: Scalar | float,
    plain: Slopes,
) -> Difference:
    """h_σ = ∂_λE(y) + σ (∂_λL(y) - ∂_λL(z)), both on one batch, so that its noise is that of y - z."""

    def one(state: State, own: Array | None) -> Difference:
        _, by_params, by_hyper = read_own(problem, hyper, state, own=own)
        slopes = slopes_of(problem, hyper, state.params, batch)
        apart = tree.scale(penalty, tree.subtract(slopes, plain))
        size = tree.norm(by_params)

        def relative(slope: PyTree) -> Scalar:
            return tree.norm(tree.add(slope, by_params)) / jnp.where(size > 0, size, 1)

        residual = relative(tree.scale(penalty, slopes.by_params))
        return Difference(tree.add(by_hyper, apart.by_hyper), residual, relative(apart.by_params))

    found = each(problem, one, run)
    return found._replace(hypergradient=select(problem, hyper, found.hypergradient))


def read_own(
    problem: AbstractMoment, hyper: Hyper, state: State, *, own: Array | None
) -> tuple[Scalar, PyTree, Hyper]:
    """E, ∂_wE and ∂_λE: of the only objective, or of that with the number ``own``."""
    reading = problem.read(state, hyper)
    reading = reading._replace(by_state=reading.by_state.params)
    return reading if own is None else jax.tree.map(lambda leaf: leaf[own], reading)


def spread(problem: AbstractMoment, state: State) -> State:
    """``state``, or one of it for each objective if there are several."""
    if not problem.several_objectives:
        return state
    number = len(jax.tree.leaves(problem.objective, is_leaf=is_objective))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), state)


def each(problem: AbstractMoment, one: Callable[..., Any], run: State) -> Any:
    """``one`` of a run, or of each of several: one for each objective."""
    if not problem.several_objectives:
        return one(run, None)
    number = jax.tree.leaves(run)[0].shape[0]
    return jax.vmap(one)(run, jnp.arange(number))


def check_penalty(problem: AbstractMoment, hyper: Hyper, method: str) -> None:
    """Refuses where slopes of the loss by λ do not tell how training moves; no second derivative is asked for.

    Raises:
        TypeError, ValueError: the message says why, and what to do.
    """
    state = jax.eval_shape(problem.init, hyper)
    update_of(problem.dynamics, method)
    if isinstance(state.params, Variables):
        raise TypeError(
            f"{method} compares trained parameters, but the loss also carries arrays "
            "(rfho.Variables), which move with them: use ReverseHyperGradient"
        )
    (used,) = inputs_used(problem.dynamics.output, state)
    if any(jax.tree.leaves(used._replace(params=None))):
        raise TypeError(
            f"{method} compares trained parameters, but objectives see what Descent's output makes "
            "of the slots: leave output out, as both agree at the end of training, or use ReverseHyperGradient"
        )
    loss, batch = loss_of(problem.dynamics), problem.train_batch(0)

    def seen(state: State, hyper: Hyper) -> PyTree:
        whole, params = problem.whole(hyper), problem.dynamics.output(state)
        return loss(state.params, whole, batch), problem.evaluate(params, hyper)

    _, used = inputs_used(seen, state, hyper)
    leaves = jax.tree_util.tree_leaves_with_path(used)
    idle = [tree.path_of(path, "hyper") for path, use in leaves if not use]
    if idle:
        raise ValueError(
            f"{', '.join(idle)} reaches neither the loss nor the objective: it belongs to the optimiser or to the "
            "initial parameters, which do not move the minimiser, so that a penalty tells nothing about it. Mark "
            "it rfho.Fixed(), or use ReverseHyperGradient or ForwardHyperGradient"
        )
