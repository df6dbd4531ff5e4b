"""What an estimate will cost on a problem: its time in plain training runs, and its memory in bytes.

Nothing is run. **Time** is counted: the parts of which all methods are made (a step, a step that is
remembered, one pulled back, one pushed along, a read-out) are traced on abstract arrays, see
`rfho._programs.roofline`, and each method says how many of them it needs:

    StoreAll            T (remember + pull back)
    Replay              the same, and T updates
    Recompute           T - segment steps more
    Binomial(slots)     the steps of its schedule more
    Anchored(every)     T (step + invert + pull back)
    Forward(chunk)      ⌈m/chunk⌉ T pushes of ``chunk`` directions
    RandomForward(b)    the same with b in place of m
    Implicit            T steps and N products

**Memory** is the tape, known to the byte from its shapes, and what the compiler needs beside it, which it is
asked, see `rfho._programs.compiled`: once for each thing that a policy may keep, whatever the policy and the
horizon, and once for each number of directions. Plain training is T steps and one evaluation.
"""

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rfho._engines.forward import apart, coordinates, push_steps, read_along, start
from rfho._engines.forward import push as push_along
from rfho._engines.reverse import chain_of, roll, sweep, through_init
from rfho._programs import trees as tree
from rfho._programs.avals import ShapedArray, abstract, bytes_on_device
from rfho._programs.compiled import memory_of
from rfho._programs.roofline import Rates, Work, work_of
from rfho.dynamics import Keep
from rfho.memory import AbstractCheckpoint, StoreAll
from rfho.memory.checkpoint import Chain, Span, Steps
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree


class Forecast(NamedTuple):
    """What a method is expected to cost.

    Attributes:
        time: of one estimate, in plain training runs.
        memory: bytes of one estimate beside the problem's own arrays.
        unknown: operations that take time which is not counted, as nobody knows it.
        tape: how many of the bytes are the tape.
        host: bytes in the memory of the host, where that is another one.
    """

    time: float
    memory: int
    unknown: frozenset[str] = frozenset()
    tape: int = 0
    host: int = 0


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


class Parts:
    """The parts of which estimates on one problem are made, each traced when it is first asked for.

    Attributes:
        problem: arrays may be abstract or traced.
        hyper: its learned leaves, likewise.
        rates: of the machine.
        m: the number of hyperparameters.
        state: s_0, abstract.
        reading: the objectives at the end and their derivatives, abstract.
    """

    def __init__(self, problem: AbstractMoment, hyper: Hyper, rates: Rates) -> None:
        self.problem, self.hyper, self.rates = problem, hyper, rates
        self.m = tree.size(hyper)
        self.state = jax.eval_shape(lambda: problem.init(hyper))
        self.reading = jax.eval_shape(lambda s: problem.read(s, hyper), self.state)
        # Each is traced or compiled when it is first asked for, whatever the rates.
        self.back = functools.cache(self._back)
        self.push = functools.cache(self._push)
        self.beside_tape = functools.cache(self._beside_tape)
        self.of_directions = functools.cache(self._of_directions)

    @functools.cached_property
    def step(self) -> Work:
        """The work of a step."""
        problem, hyper = self.problem, self.hyper
        return work_of(lambda s, t: problem.step(s, hyper, t), self.state, _t())

    @functools.cached_property
    def read(self) -> Work:
        """The work of a read-out with derivatives."""
        return work_of(lambda s: self.problem.read(s, self.hyper), self.state)

    @functools.cached_property
    def evaluate(self) -> Work:
        """The work of a bare read-out."""
        output = self.problem.dynamics.output
        return work_of(lambda s: self.problem.evaluate(output(s), self.hyper), self.state)

    def on(self, rates: Rates) -> "Parts":
        """The same parts on a machine of other rates."""
        other = copy.copy(self)
        other.rates = rates
        return other

    @property
    def plain(self) -> float:
        """Seconds of plain training: T steps and one evaluation."""
        return self.problem.horizon * self.seconds(self.step) + self.seconds(self.evaluate)

    def forecast(self, seconds: float, memory: int) -> Forecast:
        """A forecast from seconds, in plain training runs."""
        unknown = self.step.unknown | self.evaluate.unknown
        return Forecast(seconds / self.plain, memory, unknown)

    def seconds(self, work: Work | None) -> float:
        """The time of some work on this machine."""
        return 0.0 if work is None else work.seconds(self.rates)

    def of_training(self, steps: int) -> Forecast:
        """``steps`` steps and a read-out, with nothing kept."""
        seconds = steps * self.seconds(self.step) + self.seconds(self.evaluate)
        return self.forecast(seconds, self._of_plain_steps(steps))

    def of_reverse(self, policy: AbstractCheckpoint, span: Span, *, before: int = 0) -> Forecast:
        """A sweep over ``span`` under a policy, after ``before`` plain steps."""
        ways = self.back(policy.keeps())
        steps = policy.steps(ways.chain, self.state, span)
        seconds = (
            (before + steps.plain) * self.seconds(self.step)
            + steps.remembered * self.seconds(ways.remember)
            + steps.again * self.seconds(ways.again)
            + steps.undone * self.seconds(ways.invert)
            + span.length * self.seconds(ways.pull_back)
            + self.seconds(self.read)
        )
        # A policy that goes on from a state holds that beside the two that all hold.
        more = (steps.states - Steps._field_defaults["states"]) * self.of_a_state
        tape, host = self.tape(policy, span)
        memory = tape + self.beside_tape(policy.keeps(), span) + more
        return self.forecast(seconds, memory)._replace(tape=tape, host=host)

    def of_forward(self, count: int, chunk: int | None, *, steps: int | None = None) -> Forecast:
        """``count`` directions, ``chunk`` at a time, over ``steps`` steps (the horizon by default)."""
        chunk = min(chunk or count, count)
        length = self.problem.horizon if steps is None else steps
        one = length * self.seconds(self.push(chunk)) + self.seconds(self.read)
        return self.forecast(-(-count // chunk) * one, self.of_directions(chunk))

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
        memory = held + memory_of(product, self.state, unknowns)
        return self.forecast(seconds, max(memory, self.of_training(steps).memory))

    @property
    def of_a_state(self) -> int:
        """Bytes of a state."""
        return tree.nbytes(self.state)

    def tape(self, policy: AbstractCheckpoint, span: Span) -> tuple[int, int]:
        """Bytes of a tape on the device, and of what is in another memory."""
        blank = self._blank(policy, span)
        here = bytes_on_device(blank)
        return here, tree.nbytes(blank) - here

    def _blank(self, policy: AbstractCheckpoint, span: Span) -> list[ShapedArray]:
        chain = self.back(policy.keeps()).chain
        return jax.tree.leaves(abstract(lambda: policy.blank(chain, self.state, span)))

    def _trained(self, steps: int) -> Callable[[Hyper], PyTree]:
        problem = self.problem

        def trained(hyper: Hyper) -> PyTree:
            state = roll(problem, hyper, problem.init(hyper), span=Span(0, steps))
            return problem.evaluate(problem.dynamics.output(state), hyper)

        return trained

    def _swept(self, policy: AbstractCheckpoint, span: Span) -> Callable[[Hyper], PyTree]:
        problem = self.problem

        def swept(hyper: Hyper) -> PyTree:
            found = sweep(problem, hyper, problem.init(hyper), span=span, checkpoint=policy)
            found = through_init(problem, hyper, found)
            return found.value, found.hypergradient, found.state

        return swept

    def _of_plain_steps(self, steps: int) -> int:
        """Bytes that training takes, however many steps it has."""
        return memory_of(self._trained(steps), self.hyper)

    def _beside_tape(self, keep: Keep, span: Span) -> int:
        """Bytes that a sweep takes beside its tape; of all policies that keep the same nearly as many."""
        policy = StoreAll(keep)
        return memory_of(self._swept(policy, span), self.hyper) - self.tape(policy, span)[0]

    def _of_directions(self, chunk: int) -> int:
        """Bytes for so many directions at a time, over any number of steps."""
        problem = self.problem

        def pushed(hyper: Hyper, index: Array) -> PyTree:
            along, count = coordinates(hyper).directions(index), problem.horizon
            begun = start(problem, hyper, along)
            at_end = push_steps(problem, hyper, begun, directions=along, count=count)
            reading, slopes = read_along(problem, hyper, at_end, directions=along)
            return reading.value, slopes, at_end.state, tree.norm(at_end.tangent)

        return memory_of(pushed, self.hyper, jnp.arange(chunk))

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

    def _push(self, chunk: int) -> Work:
        pushed = jax.eval_shape(
            lambda d: start(self.problem, self.hyper, d), self._directions(chunk)
        )
        tangent, directions = jax.eval_shape(
            lambda *both: tuple(map(apart, both)), pushed.tangent, self._directions(chunk)
        )

        def one(pushed: PyTree, directions: PyTree, t: PyTree) -> PyTree:
            return push_along(self.problem, self.hyper, pushed, directions=directions, t=t)

        return work_of(one, pushed._replace(tangent=tangent), directions, _t())

    def _directions(self, chunk: int) -> Hyper:
        like = lambda leaf: jax.ShapeDtypeStruct((chunk, *jnp.shape(leaf)), leaf.dtype)  # noqa: E731
        return jax.tree.map(like, self.hyper)


def _t() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.int32)
