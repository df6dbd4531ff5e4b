"""The steps of a trajectory, and what a memory policy promises."""

import abc
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.dynamics import Keep
from rfho.typing import PyTree, State, Step


class Chain(NamedTuple):
    """The steps of one trajectory, with hyperparameters and data already in place.

    Attributes:
        step: ``(state, t) -> state``.
        remember: ``(state, t) -> (state, memory)``.
        pull_back: ``(cotangents, state, memory, t) -> cotangents``.
        needed: ``() -> (kept, dropped)``: the (state, memory) of a step, abstract; first what
            ``pull_back`` uses, then the rest, each with None in place of the other's leaves.
        invert: ``(state, t) -> (state, memory)``, from the state after step t to the one before it;
            None where a step cannot be undone.
    """

    step: Callable[[State, Step], State]
    remember: Callable[[State, Step], tuple[State, PyTree]]
    pull_back: Callable[[PyTree, State, PyTree, Step], PyTree]
    needed: Callable[[], tuple[PyTree, PyTree]]
    invert: Callable[[State, Step], tuple[State, PyTree]] | None = None
    again: Callable[[State, PyTree, Step], State] | None = None


class Span(NamedTuple):
    """The steps t = start, …, stop - 1."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of steps."""
        return self.stop - self.start


class Steps(NamedTuple):
    """What a policy takes for a span beside the pull-backs of its steps, for forecasts.

    Attributes:
        plain: steps of which nothing is kept.
        remembered: steps that are written down.
        again: updates whose gradients are known.
        undone: steps that are undone.
        states: states held beside the tape.
    """

    plain: int
    remembered: int
    again: int = 0
    undone: int = 0
    states: int = 2


class AbstractCheckpoint(eqx.Module):
    """A memory policy.

    The tape is memory that the caller owns: `blank` makes it, `forward` and `backward` fill it and hand it
    back. A caller that donates it from one hypergradient to the next touches no fresh memory, which on a
    CPU is worth a good part of a training run.
    """

    @property
    def undoes_steps(self) -> bool:
        """Whether states are recovered by undoing steps in floats, which may not lead back."""
        return False

    @abc.abstractmethod
    def keeps(self) -> Keep:
        """What of each step the dynamics are asked to keep, beside its state."""

    @abc.abstractmethod
    def steps(self, chain: Chain, state: State, span: Span) -> Steps:
        """The steps that the span takes, from the shape of a state."""

    @abc.abstractmethod
    def blank(self, chain: Chain, state: State, span: Span) -> PyTree:
        """A tape for this span, with nothing on it."""

    @abc.abstractmethod
    def forward(self, chain: Chain, state: State, span: Span, tape: PyTree) -> tuple[State, PyTree]:
        """The state after the span, and the tape."""

    @abc.abstractmethod
    def backward(
        self, chain: Chain, tape: PyTree, span: Span, cotangents: PyTree
    ) -> tuple[PyTree, PyTree]:
        """``cotangents`` pulled back through all steps of the span, last first; and the used tape."""


def advance(chain: Chain, state: State, start: Step, count: Step) -> State:
    """The state after the steps t = start, …, start + count - 1, none of them kept."""
    return jax.lax.fori_loop(0, count, lambda i, s: chain.step(s, start + i), state)


class Segments(NamedTuple):
    """A span cut into segments of one length; the first takes what does not divide evenly."""

    span: Span
    length: int

    @property
    def number(self) -> int:
        """How many segments there are."""
        return -(-self.span.length // self.length)

    def steps(self, i: Step) -> tuple[Step, Step]:
        """Start and length of segment i."""
        short = self.number * self.length - self.span.length
        begin = jnp.maximum(i * self.length - short, 0)
        return self.span.start + begin, (i + 1) * self.length - short - begin


def segments_of(span: Span, length: int | None) -> Segments:
    """Segments of ``length`` steps, √T by default."""
    return Segments(span, min(length or max(1, math.isqrt(span.length)), span.length))


def entry_of(chain: Chain) -> tuple[State, PyTree]:
    """The (state, memory) of a step, abstract, whether the way back needs it or not."""
    kept, dropped = chain.needed()
    return eqx.combine(kept, dropped)
