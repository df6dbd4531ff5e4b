"""The adjoint system at the end of training: what implicit differentiation solves.

Training is taken to have found a point where a condition F(s, λ) = 0 holds. The implicit function
theorem then gives ds/dλ = -(∂F/∂s)⁻¹ ∂F/∂λ, and with one solve for the adjoint q

    (∂F/∂s)ᵀ q = ∂E/∂s,    ∇f = ∂E/∂λ - (∂F/∂λ)ᵀ q

(arXiv 1602.02355, 1911.02590). Two conditions are offered: `Stationary`, F = ∂_w L, whose matrix
is the Hessian of the loss, and `FixedPoint`, F = s - Φ(s, λ) (arXiv 2006.16218), for any dynamics.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.reverse import roll
from rfho._programs import trees as tree
from rfho._programs.liveness import inputs_used
from rfho.dynamics import AbstractDescent, AbstractDynamics, AbstractMinimisation, Keep, Variables
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment
from rfho.problem.tasks import TaskBatches, TaskDynamics
from rfho.solvers import Operator
from rfho.typing import Batch, Hyper, Loss, Params, PyTree, Scalar, State


class System(NamedTuple):
    """The condition at one point, linearised once for any number of products.

    Attributes:
        slope: F(s, λ), which training was to make 0.
        operator: q ↦ (∂F/∂s)ᵀ q, and its transpose.
        cross: q ↦ (∂F/∂λ)ᵀ q, in the structure of λ.
        symmetric: whether ∂F/∂s is a Hessian.
    """

    slope: PyTree
    operator: Operator
    cross: Callable[[PyTree], Hyper]
    symmetric: bool


class AbstractCondition(eqx.Module):
    """What is said to hold at the end of training."""

    @abc.abstractmethod
    def check(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Refuses, before anything runs, a problem to which the condition does not apply.

        Raises:
            TypeError, ValueError: the message says why, and what to do.
        """

    @abc.abstractmethod
    def unknowns(self, state: State) -> PyTree:
        """The part of a state (or of its cotangent) in which F = 0 is solved."""

    @abc.abstractmethod
    def replaced(self, state: State, unknowns: PyTree) -> State:
        """``state`` with other unknowns."""

    @abc.abstractmethod
    def system(self, problem: AbstractMoment, hyper: Hyper, state: State) -> System:
        """F and its linearisation at ``state``."""


class Stationary(AbstractCondition):
    """∂_w L(w, λ) = 0: the parameters minimise the loss of a `Descent`, a `Newton` or another search on one batch.

    The matrix is the Hessian H of the loss; a product is the derivative of ∇_(w,λ) L along q, whose
    two parts are H q and (∂²_λw L) q. What only the optimiser sees (a rate, a momentum) moves no
    stationary point, so that its implicit gradient is zero: such leaves are refused.

    Args:
        batch: the data of L; the problem's ``train`` by default, which must then be arrays, as
            minibatches have no stationary point in common.

    Example:
        Training on minibatches, the condition on all of the data:

        >>> import jax.numpy as jnp, rfho
        >>> data = jnp.arange(10.0)
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(
        ...     condition=rfho.Stationary(batch=data)
        ... )
    """

    batch: Any = None

    def check(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """A loss, a full batch, and no leaf that only the optimiser sees."""
        loss, batch = loss_of(problem.dynamics), full_batch(problem, self.batch, "Stationary")
        _refuse_more_than_parameters(problem.dynamics, jax.eval_shape(problem.init, hyper))

        def seen(hyper: Hyper) -> PyTree:
            state = jax.lax.stop_gradient(problem.init(hyper))
            slope = jax.grad(lambda w: loss(w, problem.whole(hyper), batch))(state.params)
            return slope, problem.evaluate(problem.dynamics.output(state), hyper)

        def tangents(directions: Hyper) -> PyTree:
            return jax.jvp(seen, (hyper,), (directions,))[1]

        (used,) = inputs_used(tangents, hyper)
        idle = [
            tree.path_of(path, "hyper")
            for path, use in jax.tree_util.tree_leaves_with_path(used)
            if not use
        ]
        if idle:
            raise ValueError(
                f"{', '.join(idle)} reaches neither the gradient of the loss nor the objective: it belongs to "
                "the optimiser or to the initial parameters, which do not move the minimiser, so its implicit "
                "gradient is zero. Mark it rfho.Fixed(), or use ReverseHyperGradient or ForwardHyperGradient"
            )

    def unknowns(self, state: State) -> Params:
        """The parameters w."""
        return state.params

    def replaced(self, state: State, unknowns: Params) -> State:
        """The state with the parameters replaced."""
        return state._replace(params=unknowns)

    def system(self, problem: AbstractMoment, hyper: Hyper, state: State) -> System:
        """∂_w L, and H and ∂²_λw L by one forward-over-reverse linearisation."""
        loss, batch = loss_of(problem.dynamics), full_batch(problem, self.batch, "Stationary")

        def whole_loss(params: Params, hyper: Hyper) -> Scalar:
            return loss(params, problem.whole(hyper), batch)

        slopes = jax.grad(whole_loss, argnums=(0, 1))
        (slope, _), push = jax.linearize(lambda w: slopes(w, hyper), state.params)
        hessian = lambda q: push(q)[0]  # noqa: E731
        return System(slope, Operator(hessian, hessian), lambda q: push(q)[1], symmetric=True)


class FixedPoint(AbstractCondition):
    """s = Φ(s, λ): one more step of the dynamics changes nothing (arXiv 2006.16218).

    For any dynamics, with all inexact leaves of the state as unknowns, the optimiser's slots
    included. The matrix I - ∂_sΦᵀ is not symmetric as a rule: take `rfho.solvers.GMRES`,
    `rfho.solvers.NormalEquations`, or ``rfho.solvers.Neumann(terms, rate=1)``, the fixed-point
    iteration. A rate has a derivative here that is zero but for the rest of F: leave it out.

    Args:
        batch: the data of the step; the problem's ``train`` by default, which must then be arrays.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(
        ...     rfho.solvers.GMRES(), condition=rfho.FixedPoint()
        ... )
    """

    batch: Any = None

    def check(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """A full batch."""
        full_batch(problem, self.batch, "FixedPoint")

    def unknowns(self, state: State) -> PyTree:
        """The inexact leaves of s."""
        return tree.inexact(state)

    def replaced(self, state: State, unknowns: PyTree) -> State:
        """The state with its inexact leaves replaced."""
        return eqx.combine(unknowns, state)

    def system(self, problem: AbstractMoment, hyper: Hyper, state: State) -> System:
        """s - Φ(s, λ), and its transposed linearisation: one step pulled back any number of times."""
        batch = full_batch(problem, self.batch, "FixedPoint")
        whole, way = problem.whole(hyper), problem.dynamics.way(Keep.RESIDUALS)
        after, memory = way.remember(state, whole, batch)
        inside = tree.inexact(state)

        def back(q: PyTree) -> tuple[PyTree, Hyper]:
            return way.pull_back(q, state, memory, whole, batch)

        def apply(q: PyTree) -> PyTree:
            return tree.subtract(q, back(q)[0])

        def cross(q: PyTree) -> Hyper:
            free = jax.tree.map(lambda leaf: leaf is not None, hyper, is_leaf=lambda x: x is None)
            return tree.scale(-1.0, eqx.filter(back(q)[1], free))

        def transpose(q: PyTree) -> PyTree:
            return jax.linear_transpose(apply, inside)(q)[0]

        slope = tree.subtract(inside, tree.inexact(after))
        return System(slope, Operator(apply, transpose), cross, symmetric=False)


def settled(
    condition: AbstractCondition,
    problem: AbstractMoment,
    hyper: Hyper,
    *,
    state: State,
    tolerance: Scalar | float | None,
) -> tuple[State, Int[Array, ""]]:
    """The state after at most T steps, fewer if ‖F‖ falls below ``tolerance``, and their number.

    ‖F‖ is looked at every tenth of the horizon, as it costs a gradient.
    """
    horizon = jnp.asarray(problem.horizon, jnp.int32)
    if tolerance is None:
        return roll(problem, hyper, state, span=Span(0, problem.horizon)), horizon
    stretch = -(-problem.horizon // 10)

    def goes_on(at: tuple[State, Array]) -> Array:
        slope = condition.system(problem, hyper, at[0]).slope
        return (at[1] < horizon) & ~(tree.norm(slope) <= tolerance)

    def run(at: tuple[State, Array]) -> tuple[State, Array]:
        state, t = at
        stop = jnp.minimum(t + stretch, horizon)
        step = lambda t, state: problem.step(state, hyper, t)  # noqa: E731
        return jax.lax.fori_loop(t, stop, step, state), stop

    return jax.lax.while_loop(goes_on, run, (state, jnp.zeros_like(horizon)))


def loss_of(dynamics: AbstractDynamics) -> Loss:
    """The loss that ``dynamics`` descend; over tasks the sum of all, whose Hessian is block-diagonal.

    Raises:
        TypeError: they descend none.
    """
    if isinstance(dynamics, AbstractMinimisation):
        return dynamics.loss
    if isinstance(dynamics, TaskDynamics):
        single = loss_of(dynamics.single)
        each = jax.vmap(single, in_axes=(0, None, 0))
        return lambda params, hyper, batch: jnp.sum(each(params, hyper, batch))
    raise TypeError(
        f"the condition Stationary needs a loss, but the dynamics are a {type(dynamics).__name__}: "
        "describe training as a rfho.Descent or rfho.dynamics.Newton, or use the condition rfho.FixedPoint()"
    )


def update_of(dynamics: AbstractDynamics, method: str) -> Callable[[State, PyTree, Hyper], State]:
    """The optimiser's step on another gradient than the loss has; over tasks that of each.

    Raises:
        TypeError: there is no such step; the message begins with the name of the ``method`` that asks for it.
    """
    if isinstance(dynamics, TaskDynamics):
        return jax.vmap(update_of(dynamics.single, method), in_axes=(0, 0, None))
    if isinstance(dynamics, AbstractDescent):
        return dynamics.update
    raise TypeError(
        f"{method} hands the optimiser another gradient than the loss has, but the dynamics are a "
        f"{type(dynamics).__name__}: describe training as a rfho.Descent, or use an evolution method, which needs "
        "no derivatives at all"
    )


def _refuse_more_than_parameters(dynamics: AbstractDynamics, state: State) -> None:
    if isinstance(state.params, Variables):
        raise TypeError(
            "the condition Stationary is one of the trained parameters, but the loss also carries arrays "
            "(rfho.Variables), which move with them: use the condition rfho.FixedPoint(), or ReverseHyperGradient"
        )
    (used,) = inputs_used(dynamics.output, state)
    if any(jax.tree.leaves(used._replace(params=None))):
        raise TypeError(
            "the condition Stationary is one of the parameters, but objectives see what Descent's output makes "
            "of the slots: leave output out, as both agree at the end of training, or use ReverseHyperGradient"
        )


def full_batch(problem: AbstractMoment, batch: Batch, condition: str) -> Batch:
    """The data on which ``condition`` is to hold: ``batch``, or the problem's own.

    Raises:
        ValueError: the problem's own change from step to step.
    """
    if batch is not None:
        return batch
    train = problem.at(problem.k).train
    if isinstance(train, TaskBatches) and not callable(train.train):
        return train.train
    if callable(train):
        raise ValueError(
            f"train is a {type(train).__name__}, whose batches change from step to step and have no common "
            f"point at which {condition} holds: pass the data on which it is to hold, "
            f"condition=rfho.{condition}(batch=data)"
        )
    return train
