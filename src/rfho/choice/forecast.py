"""What a method will cost on a problem: its time in plain training runs, and its memory in bytes.

Nothing is run and nothing is compiled. The parts of which all methods are made (a step, a step that
is remembered, one pulled back, one pushed along, a read-out) are traced on abstract arrays and
counted, see `rfho.work`; each method then says how many of them it needs:

    StoreAll            T (remember + pull back)                      tape: T states and memories
    Replay              the same, and T updates                       T memories, 2 √T states
    Recompute           T - segment steps more                        T/segment states, one segment
    Binomial(slots)     the steps of its schedule more                ``slots`` states
    Forward(chunk)      ⌈m/chunk⌉ T pushes of ``chunk`` directions    two tangents
    RandomForward(b)    the same with b in place of m                 the same, and b copies of λ
    Implicit            T steps and N products                        one linearised gradient

The tape is known to the byte from its shapes. Plain training is T steps and one evaluation.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfho import _tree as tree
from rfho._engines.forward import apart, start
from rfho._engines.forward import push as push_along
from rfho._engines.reverse import chain_of
from rfho._programs.roofline import Rates, Work, work_of
from rfho.dynamics import Keep
from rfho.hyper_gradients.base import AbstractHyperGradient
from rfho.hyper_gradients.forward import ForwardHyperGradient
from rfho.hyper_gradients.implicit import ImplicitHyperGradient
from rfho.hyper_gradients.random_forward import RandomForwardHyperGradient
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.memory import AbstractCheckpoint, Binomial, Recompute, Replay, StoreAll
from rfho.memory.binomial import schedule
from rfho.memory.checkpoint import Chain, Span
from rfho.problem.moment import AbstractMoment
from rfho.problem.objective import Reading
from rfho.typing import Hyper, PyTree


class Forecast(NamedTuple):
    """What a method is expected to cost.

    Attributes:
        time: of one estimate, in plain training runs.
        memory: bytes of one estimate beside the problem's own arrays.
    """

    time: float
    memory: int


def label_of(method: AbstractHyperGradient) -> str:
    """A method as one writes it, on one line."""
    match method:
        case ReverseHyperGradient(checkpoint=StoreAll(keeping=keeping)):
            inside = f"StoreAll({keeping})"
        case ReverseHyperGradient(checkpoint=Recompute(segment=int(segment))):
            inside = f"Recompute({segment})"
        case ReverseHyperGradient(checkpoint=Binomial(slots=slots)):
            inside = f"Binomial({slots})"
        case ReverseHyperGradient(checkpoint=policy):
            inside = f"{type(policy).__name__}()"
        case ForwardHyperGradient(chunk=chunk):
            inside = "" if chunk is None else f"chunk={chunk}"
        case RandomForwardHyperGradient(directions=directions, chunk=chunk):
            inside = f"{directions}, key=0" + (
                "" if chunk in (None, directions) else f", chunk={chunk}"
            )
        case _:
            inside = ""
    return f"{type(method).__name__}({inside})"


Forecaster = Callable[[AbstractHyperGradient, Rates], Forecast]
"""What a method will cost on one problem, by a machine of given rates."""


class _Parts(NamedTuple):
    """A problem, and the work of its plain parts."""

    problem: AbstractMoment
    hyper: Hyper
    state: PyTree
    reading: Reading
    step: Work
    read: Work
    evaluate: Work

    def plain(self, rates: Rates) -> float:
        """Seconds of plain training: T steps, and one evaluation."""
        steps = self.problem.horizon * self.step.seconds(rates)
        return steps + self.evaluate.seconds(rates)


class _Reverse(NamedTuple):
    """A chain, and the work of its steps on the way forth and on the way back."""

    chain: Chain
    remember: Work
    pull_back: Work
    again: Work | None


def forecaster(problem: AbstractMoment, hyper: Hyper) -> Forecaster:
    """A function that forecasts methods on one problem; each part is traced once for all of them.

    The arrays of ``problem`` and ``hyper`` may be abstract or traced.

    Raises:
        TypeError: when called on a method for which there is no forecast.
    """
    parts = _parts(problem, hyper)
    reverse = functools.cache(lambda keep: _reverse_parts(parts, keep))
    pushed = functools.cache(lambda chunk: _pushed(parts, chunk))

    def forecast(method: AbstractHyperGradient, rates: Rates) -> Forecast:
        m = tree.size(hyper)
        match method:
            case ReverseHyperGradient(checkpoint=policy):
                return _of_reverse(parts, policy, reverse(policy.keep()), rates=rates)
            case ForwardHyperGradient(chunk=chunk):
                return _of_forward(parts, m, pushed(min(chunk or m, m)), rates=rates)
            case RandomForwardHyperGradient(directions=directions, chunk=chunk):
                count = min(directions, m)
                work = pushed(min(chunk or count, count))
                forward = _of_forward(parts, count, work, rates=rates)
                return forward._replace(memory=forward.memory + 2 * count * tree.nbytes(hyper))
            case ImplicitHyperGradient():
                return _of_implicit(parts, method, rates)
            case _:
                raise TypeError(
                    f"there is no forecast for {type(method).__name__}, only for the reverse, forward, random "
                    "forward and implicit methods"
                )

    return forecast


def _parts(problem: AbstractMoment, hyper: Hyper) -> _Parts:
    state = jax.eval_shape(lambda: problem.init(hyper))
    step = work_of(lambda s, t: problem.step(s, hyper, t), state, _t())
    output = problem.dynamics.output
    evaluate = work_of(lambda s: problem.evaluate(output(s), hyper), state)
    reading = jax.eval_shape(lambda s: problem.read(s, hyper), state)
    read = work_of(lambda s: problem.read(s, hyper), state)
    return _Parts(problem, hyper, state, reading, step, read, evaluate)


def _reverse_parts(parts: _Parts, keep: Keep) -> _Reverse:
    chain = chain_of(parts.problem, parts.hyper, keep)
    _, memory = jax.eval_shape(chain.remember, parts.state, _t())
    cotangents = parts.reading.by_state, parts.reading.by_hyper
    remember = work_of(chain.remember, parts.state, _t())
    pull_back = work_of(chain.pull_back, cotangents, parts.state, memory, _t())
    again = None if chain.again is None else work_of(chain.again, parts.state, memory, _t())
    return _Reverse(chain, remember, pull_back, again)


class _Steps(NamedTuple):
    """How many steps a policy takes beside the T that are pulled back."""

    plain: int
    remembered: int
    again: int = 0


def _steps(policy: AbstractCheckpoint, chain: Chain, horizon: int) -> _Steps:
    match policy:
        case StoreAll():
            return _Steps(0, horizon)
        case Replay():
            return _Steps(0, horizon, again=horizon)
        case Recompute():
            last = policy.segments(chain, Span(0, horizon)).length
            return _Steps(horizon - last, horizon)
        case Binomial(slots=slots):
            rows, table = schedule(horizon, slots)
            return _Steps(horizon + int(table.length.sum() + (rows.t - rows.start).sum()), horizon)
        case _:
            raise TypeError(
                f"there is no forecast for the policy {type(policy).__name__}, only for StoreAll, Replay, "
                "Recompute and Binomial"
            )


def _of_reverse(
    parts: _Parts, policy: AbstractCheckpoint, ways: _Reverse, *, rates: Rates
) -> Forecast:
    problem = parts.problem
    steps = _steps(policy, ways.chain, problem.horizon)
    whole = Span(0, problem.horizon)
    tape = tree.nbytes(jax.eval_shape(lambda: policy.blank(ways.chain, parts.state, whole)))
    seconds = (
        steps.plain * parts.step.seconds(rates)
        + steps.remembered * ways.remember.seconds(rates)
        + problem.horizon * ways.pull_back.seconds(rates)
        + (0 if ways.again is None else steps.again * ways.again.seconds(rates))
        + parts.read.seconds(rates)
    )
    # Cotangents go in and come out; Binomial holds one state more, from which it goes on.
    states = 3 if isinstance(policy, Binomial) else 2
    working = max(ways.pull_back.working_set, ways.remember.working_set, parts.read.working_set)
    cotangent = ways.pull_back.results - tree.nbytes(tree.inexact(parts.state))
    memory = tape + working + states * tree.nbytes(parts.state) + max(0, cotangent)
    return Forecast(seconds / parts.plain(rates), memory)


class _Push(NamedTuple):
    """The work of one step of ``chunk`` directions."""

    chunk: int
    work: Work


def _pushed(parts: _Parts, chunk: int) -> _Push:
    problem, hyper = parts.problem, parts.hyper
    directions = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((chunk, *jnp.shape(leaf)), leaf.dtype), hyper
    )
    pushed = jax.eval_shape(lambda d: start(problem, hyper, d), directions)
    tangent, directions = jax.eval_shape(
        lambda *both: tuple(map(apart, both)), pushed.tangent, directions
    )
    pushed = pushed._replace(tangent=tangent)
    one = lambda p, d, t: push_along(problem, hyper, p, directions=d, t=t)  # noqa: E731
    return _Push(chunk, work_of(one, pushed, directions, _t()))


def _of_forward(parts: _Parts, count: int, push: _Push, *, rates: Rates) -> Forecast:
    """``count`` directions, chunk by chunk."""
    one = parts.problem.horizon * push.work.seconds(rates) + parts.read.seconds(rates)
    chunks = -(-count // push.chunk)
    # Half of the read-out's: fitted, as the compiler's heap is not packed tightly.
    reading = parts.read.working_set
    memory = max(push.work.footprint, reading) + reading // 2
    return Forecast(chunks * one / parts.plain(rates), memory)


def _of_implicit(parts: _Parts, method: ImplicitHyperGradient, rates: Rates) -> Forecast:
    """T steps, and as many products as solver and audit may take: an upper bound."""
    problem, hyper, condition = parts.problem, parts.hyper, method.condition

    def product(state: PyTree, q: PyTree) -> PyTree:
        system = condition.system(problem, hyper, state)
        return system.operator.apply(q), system.cross(q)

    unknowns = condition.unknowns(parts.reading.by_state)
    work = work_of(product, parts.state, unknowns)
    of_solver = min(getattr(method.solver, "max_products", 100), tree.size(unknowns))
    of_audit = 0 if method.audit is None else int(np.ceil(3.5 * method.audit.products))
    seconds = (
        problem.horizon * parts.step.seconds(rates)
        + 2 * parts.read.seconds(rates)
        + (of_solver + of_audit) * work.seconds(rates)
    )
    vectors = 6 if method.audit is None else 10
    memory = 2 * tree.nbytes(parts.state) + vectors * tree.nbytes(unknowns) + work.working_set
    return Forecast(seconds / parts.plain(rates), max(memory, parts.step.working_set))


def _t() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.int32)
