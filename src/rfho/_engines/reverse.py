"""Reverse-HO: roll the states forward, pull the adjoint back (alg. 1 of arXiv 1703.01785).

α_T = ∂E/∂s_T,    λ̄ ← λ̄ + α_t B_t,  α_{t-1} = α_t A_t,    ∇f = ∂E/∂λ + λ̄ + α_0 ∂Φ_0/∂λ
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import optax
from jax import Array

from rfho._programs import trees as tree
from rfho._programs.avals import abstract
from rfho._programs.liveness import inputs_used
from rfho._programs.shared_products import SharedProducts
from rfho.dynamics import Keep
from rfho.dynamics.in_precision import InPrecision
from rfho.memory import AbstractCheckpoint, Chain, Span, advance
from rfho.problem.moment import AbstractMoment, over_objectives, select
from rfho.problem.objective import Reading
from rfho.typing import Hyper, PyTree, State, Step


class Sweep(NamedTuple):
    """What a reverse sweep brings back.

    Attributes:
        value: the objectives at the end of the span, shape () or (n,).
        hypergradient: ∇f over the span.
        state: the state at the end of the span.
        seed: α at the end of the span.
        adjoint: α at its start.
        tape: the memory, to be used again.
    """

    value: Array
    hypergradient: Hyper
    state: State
    seed: PyTree
    adjoint: PyTree
    tape: PyTree


def roll(problem: AbstractMoment, hyper: Hyper, state: State, *, span: Span) -> State:
    """The state after the steps of the span, none of them kept."""
    return advance(chain_of(problem, hyper, Keep.STATES), state, span.start, span.length)


def blank_tape(
    problem: AbstractMoment, hyper: Hyper, *, span: Span, checkpoint: AbstractCheckpoint
) -> PyTree:
    """The memory for one sweep."""
    chain = chain_of(problem, hyper, checkpoint.keeps())
    return checkpoint.blank(chain, abstract(problem.init, hyper), span)


def sweep(
    problem: AbstractMoment,
    hyper: Hyper,
    state: State,
    *,
    span: Span,
    checkpoint: AbstractCheckpoint,
    tape: PyTree = None,
) -> Sweep:
    """Rolls ``state`` over the span and pulls the objectives' adjoint back to its start.

    The initial dynamics are left out: see `through_init`. Without a ``tape`` one is made.
    """
    chain = chain_of(problem, hyper, checkpoint.keeps())
    tape = checkpoint.blank(chain, state, span) if tape is None else tape
    final, tape = checkpoint.forward(chain, state, span, tape)
    reading = read(problem, hyper, final)
    cotangents = reading.by_state, reading.by_hyper
    (adjoint, hypergradient), tape = checkpoint.backward(chain, tape, span, cotangents)
    return Sweep(reading.value, hypergradient, final, reading.by_state, adjoint, tape)


def read(problem: AbstractMoment, hyper: Hyper, state: State) -> Reading:
    """The objectives at ``state`` and their derivatives, in the precision in which adjoints are carried."""
    dynamics = problem.dynamics
    if isinstance(dynamics, InPrecision):
        state, hyper = dynamics.wide((state, hyper))
        problem = problem.validated_in(dynamics.wide)
    return problem.read(state, hyper)


def through_init(problem: AbstractMoment, hyper: Hyper, swept: Sweep) -> Sweep:
    """Adds α_0 ∂Φ_0/∂λ."""
    if isinstance(problem.dynamics, InPrecision):
        hyper = problem.dynamics.wide(hyper)
    start, vjp = jax.vjp(lambda h: tree.inexact(problem.init(h)), hyper)
    # Adjoints may be in more digits than states.
    (by_init,) = over_objectives(problem, vjp)(optax.tree.cast_like(swept.adjoint, start))
    return swept._replace(hypergradient=tree.add(swept.hypergradient, by_init))


def own_objectives(problem: AbstractMoment, hyper: Hyper, swept: Sweep) -> Hyper:
    """The hypergradient in which every leaf follows its own objective."""
    return select(problem, hyper, swept.hypergradient)


def chain_of(
    problem: AbstractMoment, hyper: Hyper, keep: Keep, *, sharing: SharedProducts = SharedProducts()
) -> Chain:
    """The problem's steps as a chain: hyperparameters and data in place, cotangents (α, λ̄)."""
    problem = problem.at(problem.k)  # fresh data are drawn once, not at every step
    way = problem.dynamics.way(keep)
    whole, fixed_at = problem.whole(hyper), hyper

    def remember(state: State, t: Step) -> tuple[State, PyTree]:
        return way.remember(state, whole, problem.train_batch(t))

    def pull_back(cotangents: PyTree, state: State, memory: PyTree, t: Step) -> PyTree:
        batch = problem.train_batch(t)

        def one(cotangents: PyTree) -> PyTree:
            adjoint, accumulated = cotangents
            adjoint, by_step = way.pull_back(adjoint, state, memory, whole, batch)
            return adjoint, tree.add(accumulated, _free(by_step, fixed_at))

        return over_objectives(problem, one)(cotangents)

    def step(state: State, t: Step) -> State:
        return problem.step(state, hyper, t)

    @functools.cache
    def needed() -> tuple[PyTree, PyTree]:
        state = abstract(problem.init, hyper)
        _, memory = abstract(lambda s: remember(s, 0), state)
        cotangents = jax.eval_shape(lambda s: problem.read(s, hyper)[1:], state)
        pull = lambda c, entry: pull_back(c, entry[0], entry[1], 0)  # noqa: E731
        _, used = inputs_used(pull, cotangents, (state, memory))
        return eqx.partition((state, memory), used)

    chain = Chain(step, remember, sharing(pull_back), needed)
    invert, again = way.invert, way.again
    if invert is not None:
        chain = chain._replace(invert=lambda s, t: invert(s, whole, problem.train_batch(t)))
    if again is not None:
        chain = chain._replace(again=lambda s, memory, t: again(s, memory, whole))
    return chain


def _free(cotangent: Hyper, hyper: Hyper) -> Hyper:
    # Fixed leaves have cotangents too; they are None in ``hyper`` and are dropped here.
    keep = jax.tree.map(lambda leaf: leaf is not None, hyper, is_leaf=lambda leaf: leaf is None)
    return eqx.filter(cotangent, keep)
