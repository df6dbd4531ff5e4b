"""The compiled programs of an estimate that is driven from Python, segment after segment."""

from typing import Any

import equinox as eqx

from rfho._engines.reverse import Sweep, chain_of, read, roll, through_init
from rfho._programs.begun import begun
from rfho.hyper_gradients.base import Estimate, estimated
from rfho.memory import AbstractCheckpoint, Span
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State, Step


class Length(eqx.Module):
    """A number of steps that a program is compiled for."""

    steps: int = eqx.field(static=True)


@eqx.filter_jit
def begin(problem: AbstractMoment, hyper: Hyper) -> State:
    """s_0."""
    return problem.init(hyper)


@begun
def read_end(problem: AbstractMoment, hyper: Hyper, state: State) -> Any:
    """The objectives at the end, and their derivatives."""
    return read(problem, hyper, state)


@begun
def evaluate(problem: AbstractMoment, hyper: Hyper, params: Params) -> PyTree:
    """f(λ)."""
    return problem.evaluate(params, hyper)


@begun
def advance(
    problem: AbstractMoment, hyper: Hyper, state: State, start: Step, length: Length
) -> State:
    """The state after a segment."""
    return roll(problem.later(start), hyper, state, span=Span(0, length.steps))


@begun
def pull_back(
    problem: AbstractMoment,
    hyper: Hyper,
    state_and_cotangents: tuple[State, PyTree],
    start: Step,
    length: Length,
    checkpoint: AbstractCheckpoint,
) -> PyTree:
    """The cotangents at the start of a segment, from those at its end and the state at its start."""
    state, cotangents = state_and_cotangents
    span = Span(0, length.steps)
    chain = chain_of(problem.later(start), hyper, checkpoint.keeps())
    _, tape = checkpoint.forward(chain, state, span, checkpoint.blank(chain, state, span))
    return checkpoint.backward(chain, tape, span, cotangents)[0]


@eqx.filter_jit
def finish(problem: AbstractMoment, hyper: Hyper, swept: Sweep) -> Estimate:
    """The estimate, once all segments are pulled back."""
    swept = through_init(problem, hyper, swept)
    return estimated(problem, hyper, swept)
