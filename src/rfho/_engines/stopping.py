r"""A reverse sweep that stops once what is left is small: truncation whose window follows from its bias.

The way back goes segment by segment. Where training contracts, what a segment adds to the hypergradient falls
geometrically, so that two of them tell what all the earlier ones would add,

.. math:: c_i = \|h_i - h_{i+1}\|, \quad \rho = c_i / c_{i+1}, \quad \text{error} \approx c_i \rho / (1 - \rho).
"""

from math import isqrt
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho import _tree as tree
from rfho._engines.reverse import Sweep, chain_of, roll, through_init
from rfho.memory import AbstractCheckpoint, Span
from rfho.problem.moment import AbstractMoment, select
from rfho.typing import Hyper, PyTree, Scalar, State


class Stopped(NamedTuple):
    """Where a sweep stopped.

    Attributes:
        sweep: up to there.
        window: K, the steps that it went back.
        error: what the earlier ones are estimated to add, in norm; 0 if there are none.
    """

    sweep: Sweep
    window: Int[Array, ""]
    error: Scalar


class _Back(NamedTuple):
    """On the way back: segments left, cotangents, what the last one added, what the rest will."""

    left: Int[Array, ""]
    cotangents: PyTree
    added: Scalar
    error: Scalar


def stopping_sweep(
    problem: AbstractMoment, hyper: Hyper, *, checkpoint: AbstractCheckpoint, bias: float
) -> Stopped:
    """Back by segments of √T steps until the error is below ``bias`` · ‖h‖, or to the start."""
    horizon, length = problem.horizon, isqrt(problem.horizon)
    number, rest = divmod(horizon, length)
    begin = problem.init(hyper)

    def forth(state: State, i: Array) -> tuple[State, State]:
        segment = problem.later(rest + i * length)
        return roll(segment, hyper, state, span=Span(0, length)), state

    state = roll(problem, hyper, begin, span=Span(0, rest))
    final, starts = jax.lax.scan(forth, state, jnp.arange(number))
    reading = problem.read(final, hyper)

    def back(moment: AbstractMoment, state: State, cotangents: PyTree, steps: int) -> PyTree:
        chain = chain_of(moment, hyper, checkpoint.keeps())
        span = Span(0, steps)
        _, tape = checkpoint.forward(chain, state, span, checkpoint.blank(chain, state, span))
        return checkpoint.backward(chain, tape, span, cotangents)[0]

    def size(by_hyper: Hyper) -> Scalar:
        return tree.norm(select(problem, hyper, by_hyper))

    def enough(at: _Back) -> Array:
        return at.error <= bias * size(at.cotangents[1])

    def segment(at: _Back) -> _Back:
        i = at.left - 1
        state = jax.tree.map(lambda leaf: leaf[i], starts)
        moment = problem.later(rest + i * length)
        after = back(moment, state, at.cotangents, length)
        added = size(tree.subtract(after[1], at.cotangents[1]))
        return _Back(i, after, added, _tail(added, at.added))

    seeds = reading.by_state, reading.by_hyper
    zero = jnp.zeros_like(size(reading.by_hyper))
    at = _Back(jnp.asarray(number), seeds, zero, zero + jnp.inf)
    at = jax.lax.while_loop(lambda at: (at.left > 0) & ~enough(at), segment, at)

    def whole(cotangents: PyTree) -> PyTree:
        adjoint, by_hyper = back(problem, begin, cotangents, rest) if rest else cotangents
        swept = Sweep(reading.value, by_hyper, final, reading.by_state, adjoint, None)
        return adjoint, through_init(problem, hyper, swept).hypergradient

    stopped = enough(at)
    adjoint, by_hyper = jax.lax.cond(stopped, lambda c: c, whole, at.cotangents)
    window = jnp.where(stopped, horizon - rest - at.left * length, horizon)
    swept = Sweep(reading.value, by_hyper, final, reading.by_state, adjoint, None)
    return Stopped(swept, window, jnp.where(stopped, at.error, 0))


def _tail(added: Scalar, before: Scalar) -> Scalar:
    """What comes after ``added``, where each adds the same fraction of the one before; infinite if not less."""
    falls = added < before
    ratio = added / jnp.where(falls, before, 1)
    return jnp.where(falls, added * ratio / jnp.where(falls, 1 - ratio, 1), jnp.inf)
