"""A training algorithm as a dynamical system: s_0 = Φ_0(λ), s_t = Φ(s_{t-1}, λ, b_t) (eqs. 1-4 of arXiv 1703.01785).

Forward mode needs `step` alone. The way back needs one step pulled back at a time,

    (α, λ̄) ← (α A_t, λ̄ + α B_t),    A_t = ∂Φ/∂s, B_t = ∂Φ/∂λ,

and `Way` says how a dynamics does that cheaply: what it keeps of a step, and how it uses it.
"""

import abc
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax

from rfho._programs import trees as tree
from rfho._programs.residuals import linearised
from rfho.dynamics._grad import pulling_back
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State


class Keep(enum.Enum):
    """What is kept of each step, beside its state, for the way back.

    `STATES` keeps nothing more and computes the inner gradient a second time. `GRADIENTS` keeps the
    inner gradient (one more copy of the parameters per step). `RESIDUALS` keeps the results of the
    matrix products and convolutions inside the inner gradient (the activations) instead, so that none
    of them is computed a second time: the fastest where activations are smaller than parameters.
    """

    STATES = "states"
    GRADIENTS = "gradients"
    RESIDUALS = "residuals"


class Way(NamedTuple):
    """How one step is taken and later pulled back.

    Attributes:
        remember: ``(state, hyper, batch) -> (state, memory)``; the next state is that of `step`.
        pull_back: ``(adjoint, state, memory, hyper, batch) -> (adjoint, hyper cotangent)``, at the
            state from which the step started; adjoints and cotangents have None for leaves that are
            not inexact.
        invert: ``(state, hyper, batch) -> (state, memory)``, from the state after a step to the one
            before it and what `remember` would have kept; None where a step cannot be undone.
        again: ``(state, memory, hyper) -> state``: a step whose gradient is known, taken again; None
            where there is no such thing.
    """

    remember: Callable[[State, Hyper, Batch], tuple[State, PyTree]]
    pull_back: Callable[[PyTree, State, PyTree, Hyper, Batch], tuple[PyTree, PyTree]]
    invert: Callable[[State, Hyper, Batch], tuple[State, PyTree]] | None = None
    again: Callable[[State, PyTree, Hyper], State] | None = None


class AbstractDynamics(eqx.Module):
    """What every dynamics offers to the engines."""

    @abc.abstractmethod
    def init(self, hyper: Hyper) -> State:
        """s_0 = Φ_0(λ)."""

    @abc.abstractmethod
    def step(self, state: State, hyper: Hyper, batch: Batch) -> State:
        """s_t = Φ(s_{t-1}, λ, b_t)."""

    @abc.abstractmethod
    def output(self, state: State) -> Params:
        """w_t, the part of the state that objectives see."""

    @abc.abstractmethod
    def way(self, keep: Keep) -> Way:
        """How to pull one step back when ``keep`` is kept of it."""


class AbstractMinimisation(AbstractDynamics):
    """Dynamics in search of a minimum of a loss, whatever their steps: what `rfho.Stationary` holds at their end.

    ``state.params`` is what the loss is given.
    """

    @abc.abstractmethod
    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L(w, λ, b)."""


class AbstractDescent(AbstractMinimisation):
    """Dynamics whose step is the gradient of a loss, followed by an update that sees nothing else of it.

    What needs the loss itself, or its gradient, or an optimiser's step on another gradient, asks for these
    dynamics, whichever they are.
    """

    @abc.abstractmethod
    def gradient(self, params: Params, hyper: Hyper, batch: Batch) -> PyTree:
        """∇_w L(w, λ, b)."""

    @abc.abstractmethod
    def update(self, state: State, gradient: PyTree, hyper: Hyper) -> State:
        """The state after ``gradient`` in place of ∇_w L; what is carried beside parameters stays."""


def save_products(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, of whose linearisation only the matrix products and convolutions are kept."""
    return jax.checkpoint(function, policy=_is_product)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in ("dot_general", "conv_general_dilated", "ragged_dot")


def way_through_step(step: Callable[[State, Hyper, Batch], State], keep: Keep) -> Way:
    """The way back of any step function: its vjp, computed anew or with its residuals kept."""

    def vjp(state: State, hyper: Hyper, batch: Batch) -> tuple[State, Any]:
        return _vjp_of_step(step, state, hyper, batch)

    def recompute(state: State, hyper: Hyper, batch: Batch) -> tuple[State, PyTree]:
        return step(state, hyper, batch), ()

    def remember(state: State, hyper: Hyper, batch: Batch) -> tuple[State, PyTree]:
        linear = linearised(vjp, state, hyper, batch)
        return linear.outputs, linear.kept()

    def pull_back(
        adjoint: PyTree, state: State, memory: PyTree, hyper: Hyper, batch: Batch
    ) -> tuple[PyTree, PyTree]:
        if keep is not Keep.RESIDUALS:
            return vjp(state, hyper, batch)[1](adjoint)
        return linearised(vjp, state, hyper, batch).recalled(memory)(adjoint)

    return Way(remember if keep is Keep.RESIDUALS else recompute, pull_back)


def _vjp_of_step(
    step: Callable[[State, Hyper, Batch], State], state: State, hyper: Hyper, batch: Batch
) -> tuple[State, Callable[[PyTree], tuple[PyTree, PyTree]]]:
    """The next state, and the vjp over inexact leaves: a pytree whose leaves are the residuals."""
    (state_in, hyper_in), rest = tree.split((state, hyper))

    def inexact_step(state_in: PyTree, hyper_in: PyTree) -> tuple[PyTree, PyTree]:
        state, hyper = eqx.combine((state_in, hyper_in), rest)
        with pulling_back(True):
            return tree.split(step(state, hyper, batch))

    after, vjp, after_rest = jax.vjp(save_products(inexact_step), state_in, hyper_in, has_aux=True)
    return eqx.combine(after, after_rest), vjp
