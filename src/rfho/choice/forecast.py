"""What an estimate will cost on a problem: its time in plain training runs, and its memory in bytes.

Nothing is run and nothing is compiled. The parts of which all methods are made (a step, a step that
is remembered, one pulled back, one pushed along, a read-out) are traced on abstract arrays and
counted, see `rfho._programs.roofline`; each method then says how many of them it needs:

    StoreAll            T (remember + pull back)                      tape: T states and memories
    Replay              the same, and T updates                       T memories, 2 √T states
    Recompute           T - segment steps more                        T/segment states, one segment
    Binomial(slots)     the steps of its schedule more                ``slots`` states
    Anchored(every)     T (step + invert + pull back)                 T/every states
    Forward(chunk)      ⌈m/chunk⌉ T pushes of ``chunk`` directions    two tangents
    RandomForward(b)    the same with b in place of m                 the same, and b copies of λ
    Implicit            T steps and N products                        one linearised gradient

The tape is known to the byte from its shapes. Plain training is T steps and one evaluation.
"""

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfho import _tree as tree
from rfho._engines.forward import apart, start
from rfho._engines.forward import push as push_along
from rfho._engines.reverse import chain_of
from rfho._programs.avals import abstract, bytes_on_device
from rfho._programs.roofline import Rates, Work, work_of
from rfho.dynamics import Keep
from rfho.memory import AbstractCheckpoint
from rfho.memory.checkpoint import Chain, Span
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree


class Forecast(NamedTuple):
    """What a method is expected to cost.

    Attributes:
        time: of one estimate, in plain training runs.
        memory: bytes of one estimate beside the problem's own arrays.
    """

    time: float
    memory: int


class Back(NamedTuple):
    """A chain, and the work of its steps on the way forth and on the way back.

    Attributes:
        chain: the steps of the problem.
        remember: of a step that is written down.
        pull_back: of a step that is pulled back.
        again: of an update whose gradient is known; None where there is no such thing.
        invert: of a step undone; None where it cannot be.
    """

    chain: Chain
    remember: Work
    pull_back: Work
    again: Work | None
    invert: Work | None


class Push(NamedTuple):
    """The work of one step of ``chunk`` directions."""

    chunk: int
    work: Work


class Parts:
    """The parts of which estimates on one problem are made, each traced when it is first asked for.

    Attributes:
        problem: arrays may be abstract or traced.
        hyper: its learned leaves, likewise.
        rates: of the machine.
        m: the number of hyperparameters.
        state: s_0, abstract.
        step, read, evaluate: the work of a step, of a read-out with derivatives, of a bare one.
    """

    def __init__(self, problem: AbstractMoment, hyper: Hyper, rates: Rates) -> None:
        self.problem, self.hyper, self.rates = problem, hyper, rates
        self.m = tree.size(hyper)
        self.state = jax.eval_shape(lambda: problem.init(hyper))
        self.step = work_of(lambda s, t: problem.step(s, hyper, t), self.state, _t())
        output = problem.dynamics.output
        self.evaluate = work_of(lambda s: problem.evaluate(output(s), hyper), self.state)
        self.reading = jax.eval_shape(lambda s: problem.read(s, hyper), self.state)
        self.read = work_of(lambda s: problem.read(s, hyper), self.state)
        self.back = functools.cache(self._back)
        self.push = functools.cache(self._push)

    def on(self, rates: Rates) -> "Parts":
        """The same parts on a machine of other rates."""
        other = copy.copy(self)
        other.rates = rates
        return other

    def forecast(self, seconds: float, memory: int) -> Forecast:
        """A forecast from seconds: in units of T steps and one evaluation."""
        plain = self.problem.horizon * self.seconds(self.step) + self.seconds(self.evaluate)
        return Forecast(seconds / plain, memory)

    def seconds(self, work: Work | None) -> float:
        """The time of some work on this machine."""
        return 0.0 if work is None else work.seconds(self.rates)

    def of_training(self, steps: int) -> Forecast:
        """``steps`` steps and a read-out, with nothing kept."""
        memory = max(self.step.working_set, self.evaluate.working_set) + 2 * tree.nbytes(self.state)
        seconds = steps * self.seconds(self.step) + self.seconds(self.evaluate)
        return self.forecast(seconds, memory)

    def of_reverse(self, policy: AbstractCheckpoint, span: Span, *, before: int = 0) -> Forecast:
        """A sweep over ``span`` under a policy, after ``before`` plain steps."""
        ways = self.back(policy.keeps())
        steps = policy.steps(ways.chain, self.state, span)
        tape = bytes_on_device(abstract(lambda: policy.blank(ways.chain, self.state, span)))
        seconds = (
            (before + steps.plain) * self.seconds(self.step)
            + steps.remembered * self.seconds(ways.remember)
            + steps.again * self.seconds(ways.again)
            + steps.undone * self.seconds(ways.invert)
            + span.length * self.seconds(ways.pull_back)
            + self.seconds(self.read)
        )
        working = max(ways.pull_back.working_set, ways.remember.working_set, self.read.working_set)
        # Cotangents go in and come out; a policy that goes on from a state holds that one more.
        cotangent = ways.pull_back.results - tree.nbytes(tree.inexact(self.state))
        states = steps.states * tree.nbytes(self.state)
        return self.forecast(seconds, tape + working + states + max(0, cotangent))

    def of_forward(self, count: int, chunk: int | None, *, steps: int | None = None) -> Forecast:
        """``count`` directions, ``chunk`` at a time, over ``steps`` steps (the horizon by default)."""
        push = self.push(min(chunk or count, count))
        length = self.problem.horizon if steps is None else steps
        one = length * self.seconds(push.work) + self.seconds(self.read)
        # Half of the read-out's: fitted, as the compiler's heap is not packed tightly.
        reading = self.read.working_set
        memory = max(push.work.footprint, reading) + reading // 2
        return self.forecast(-(-count // push.chunk) * one, memory)

    def of_products(
        self,
        product: Callable[[PyTree, PyTree], PyTree],
        unknowns: PyTree,
        *,
        count: int,
        vectors: int,
        steps: int,
    ) -> Forecast:
        """``steps`` steps, two read-outs, and ``count`` products of a state and a vector like ``unknowns``."""
        work = work_of(product, self.state, unknowns)
        seconds = (
            steps * self.seconds(self.step)
            + 2 * self.seconds(self.read)
            + count * self.seconds(work)
        )
        held = 2 * tree.nbytes(self.state) + vectors * tree.nbytes(unknowns)
        return self.forecast(seconds, max(held + work.working_set, self.step.working_set))

    def _back(self, keep: Keep) -> Back:
        chain = chain_of(self.problem, self.hyper, keep)
        _, memory = jax.eval_shape(chain.remember, self.state, _t())
        cotangents = self.reading.by_state, self.reading.by_hyper
        return Back(
            chain,
            work_of(chain.remember, self.state, _t()),
            work_of(chain.pull_back, cotangents, self.state, memory, _t()),
            None if chain.again is None else work_of(chain.again, self.state, memory, _t()),
            None if chain.invert is None else work_of(chain.invert, self.state, _t()),
        )

    def _push(self, chunk: int) -> Push:
        directions = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((chunk, *jnp.shape(leaf)), leaf.dtype), self.hyper
        )
        pushed = jax.eval_shape(lambda d: start(self.problem, self.hyper, d), directions)
        tangent, directions = jax.eval_shape(
            lambda *both: tuple(map(apart, both)), pushed.tangent, directions
        )
        pushed = pushed._replace(tangent=tangent)

        def one(pushed: PyTree, directions: PyTree, t: PyTree) -> PyTree:
            return push_along(self.problem, self.hyper, pushed, directions=directions, t=t)

        return Push(chunk, work_of(one, pushed, directions, _t()))


def _t() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.int32)
