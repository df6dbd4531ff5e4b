r"""A reverse sweep that stops once what is left is small: truncation whose window follows from its bias.

The way back goes segment by segment. What a segment adds to the hypergradient, divided by the adjoints of its
steps, and how the adjoint falls over it, tell what all the earlier ones would add: see `rfho._engines.left_out`.
"""

from math import isqrt
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.left_out import at_start, left_out, logarithmic_mean, norm_at_params, ratio
from rfho._engines.reverse import Sweep, chain_of, roll, through_init
from rfho._programs import trees as tree
from rfho.memory import AbstractCheckpoint, Span
from rfho.memory.checkpoint import Chain
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
    """On the way back: segments left, cotangents, the most a unit of adjoint has added, what the rest will."""

    left: Int[Array, ""]
    cotangents: PyTree
    by_unit: Scalar
    error: Scalar


def stopping_sweep(
    problem: AbstractMoment, hyper: Hyper, *, checkpoint: AbstractCheckpoint, bias: float
) -> Stopped:
    """Back by segments of √T steps until the error is below ``bias`` · ‖h‖, or to the start."""
    horizon, length = problem.horizon, isqrt(problem.horizon)
    number, rest = divmod(horizon, length)
    begin = problem.init(hyper)

    state = roll(problem, hyper, begin, span=Span(0, rest))
    final, starts = _forth(problem.later(rest), hyper, state, number=number, length=length)
    reading = problem.read(final, hyper)

    def back(moment: AbstractMoment, state: State, cotangents: PyTree, steps: int) -> PyTree:
        chain = chain_of(moment, hyper, checkpoint.keeps())
        return _pulled(chain, state, cotangents, checkpoint=checkpoint, span=Span(0, steps))

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
        late, early = norm(at.cotangents[0]), norm(after[0])
        newest = ratio(added, length * logarithmic_mean(late, early))
        by_unit, rate = jnp.maximum(at.by_unit, newest), ratio(early, late) ** (1 / length)
        by_start = at_start(problem, hyper, after[0])
        error = left_out(by_unit * early, rate, rest + i * length, by_start=by_start)
        return _Back(i, after, by_unit, error)

    seeds = reading.by_state, reading.by_hyper
    zero, norm = jnp.zeros_like(size(reading.by_hyper)), norm_at_params(problem, final)
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


def _forth(
    problem: AbstractMoment, hyper: Hyper, state: State, *, number: int, length: int
) -> tuple[State, State]:
    """The state after so many segments, and where each began."""

    def one(state: State, i: Array) -> tuple[State, State]:
        segment = problem.later(i * length)
        return roll(segment, hyper, state, span=Span(0, length)), state

    return jax.lax.scan(one, state, jnp.arange(number))


def _pulled(
    chain: Chain, state: State, cotangents: PyTree, *, checkpoint: AbstractCheckpoint, span: Span
) -> PyTree:
    """Cotangents before a span, from those after it."""
    _, tape = checkpoint.forward(chain, state, span, checkpoint.blank(chain, state, span))
    return checkpoint.backward(chain, tape, span, cotangents)[0]
