"""Reverse-HO without stored states: training run backwards to the bit (alg. 2 and 3 of arXiv 1502.03492)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from rfho._engines.reverse import Sweep, chain_of, own_objectives, through_init
from rfho._programs import trees as tree
from rfho.dynamics import Keep, ReversibleDescent, ReversibleState
from rfho.dynamics.exact_momentum import Digits, Plan, Turn, words_at_risk
from rfho.dynamics.integers import SPILLED
from rfho.errors import HyperGradientError, Result
from rfho.hyper_gradients.base import (
    AbstractHyperGradient,
    Estimate,
    Mode,
    aux_of,
    evaluated,
    rounding,
)
from rfho.problem.moment import AbstractMoment
from rfho.problem.tasks import TaskDynamics
from rfho.typing import Batch, Hyper, Params, PyTree, Step


class ReversibleHyperGradient(AbstractHyperGradient):
    r"""Exact hypergradient at the memory of a few states, whatever the horizon.

    For `ReversibleDescent`, or many tasks of it (`over_tasks`). Every state on the way back is
    computed from the one after it, in integers and without any error; kept are only the bits that a
    product by the momentum loses.

    .. math:: \log_2 (1/\mu) \text{ bits per parameter and step}

    That is 1 bit at momentum 0.5, 0.152 at 0.9 and 0.029 at 0.98, and 31 bits once.

    Args:
        least_momentum: the least momentum, as a geometric mean over a run, that the buffer has room
            for: :math:`T \log_2(1 / \text{least})` bits per parameter. A run that needs more is not
            begun: an error says how much.

    Cost:
        Time O(T): three gradients, one of them inside a Hessian-vector product, and integer
        arithmetic of about 12 ns per parameter and step on a CPU; 6 times plain training where
        `ReverseHyperGradient` took 3 (45,000 parameters, batches of 200). Memory O(1) states and
        the buffer. Exact up to the straight-through derivative of rounding, see
        `ReversibleDescent`. The gradient must give the same bits when it is computed again, which
        the atomic additions of some accelerators do not: the state that comes back is compared with
        the initial one, and a bit that differs is an error, not a wrong hypergradient.

    Aux:
        ``stats["bits"]``: bits per parameter and step that the run put into the buffer;
        ``stats["fits"]``: whether they had room; ``stats["returned"]``: whether the initial state
        came back to the bit (1 or 0, and the hypergradient is NaN where either is 0);
        ``stats["seed_norm"]``, ``stats["adjoint_norm"]`` and ``stats["rounding"]`` as in
        `ReverseHyperGradient`, of parameters and velocity, and of their fixed point.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> dynamics = rfho.ReversibleDescent(
        ...     loss=lambda w, hyper, batch: 0.5 * (w - 1) ** 2,
        ...     rate=lambda hyper, t: hyper,
        ...     momentum=lambda hyper, t: 0.5,
        ...     init=jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=100
        ... )
        >>> method = rfho.hyper_gradients.ReversibleHyperGradient()
        >>> float(rfho.hyper_gradient(problem, 0.1, method).aux.stats["returned"])
        1.0
    """

    least_momentum: float = eqx.field(static=True, default=0.5)

    def __check_init__(self) -> None:
        least = self.least_momentum
        if not isinstance(least, float | int) or not 2.0**-14 <= least <= 1:
            raise ValueError(
                f"ReversibleHyperGradient got least_momentum={least!r}, but it must be a number from "
                "2**-14 to 1"
            )

    @property
    def mode(self) -> Mode:
        """Reverse."""
        return Mode.REVERSE

    @property
    def cost_unknown(self) -> str:
        """Integer arithmetic on single bits is not among what forecasts count."""
        return "its integer arithmetic is not among what forecasts count"

    def init(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Nothing is carried."""

    def reserve(self, problem: AbstractMoment, hyper: Hyper) -> PyTree:
        """The tape."""
        # One row more than is ever filled: the last is written in vain.
        rows = self._rows(problem) + 1
        like = jax.eval_shape(problem.init, hyper).params
        return jax.tree.map(lambda w: jnp.zeros((rows, *w.shape), jnp.uint16), like)

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: PyTree
    ) -> tuple[Estimate, PyTree]:
        """∇f(λ) of the whole run, there and back; ``carry`` is None or what `reserve` gave."""
        run, start = _run(problem, hyper), problem.init(hyper)
        plan = run.plan()
        fits = jnp.max(jnp.stack(jax.tree.leaves(plan.rows))) <= self._rows(problem)
        steps = jnp.where(fits, problem.horizon, 0)  # a run that does not fit is not begun
        tape = self.reserve(problem, hyper) if carry is None else carry
        ended = _forward(run, start, plan.turns, tape=tape, steps=steps)
        reading = problem.read(ended.state, hyper)
        cotangents = reading.by_state, reading.by_hyper
        (adjoint, by_steps), digits = _backward(
            run, ended, plan.turns, cotangents=cotangents, steps=steps
        )
        swept = Sweep(reading.value, by_steps, ended.state, reading.by_state, adjoint, ended.tape)
        hypergradient = own_objectives(problem, hyper, through_init(problem, hyper, swept))
        returned = _same(digits, start.digits)
        hypergradient = jax.tree.map(
            lambda g: jnp.where(fits & returned, g, jnp.nan), hypergradient
        )
        # A run that ended in NaN needs no second complaint.
        returned = returned | ~_finite(ended.state.params)
        stats = {
            "bits": _mean_bits(plan, start.params) / problem.horizon,
            "fits": jnp.asarray(fits, jnp.float32),
            "returned": jnp.asarray(returned, jnp.float32),
            "seed_norm": tree.norm(swept.seed),
            "adjoint_norm": tree.norm(swept.adjoint),
        }
        stats["rounding"] = rounding(problem, hypergradient, stats, width=run.dynamics.width)
        aux = aux_of(problem, ended.state, stats)
        estimate = Estimate(problem.values(swept.value), hypergradient, aux)
        return estimate, None if carry is None else ended.tape

    def complaint(self, stats: dict[str, float]) -> HyperGradientError | None:
        """No room in the buffer, or a run that did not come back."""
        if not stats["fits"]:
            return HyperGradientError(
                Result.NO_ROOM,
                f"the buffer has room for {math.log2(1 / self.least_momentum):.3f} bits per parameter and "
                f"step, but momentum loses {stats['bits']:.3f}: choose a least_momentum below "
                f"{2 ** -stats['bits']:.3f}",
            )
        if not stats["returned"]:
            return HyperGradientError(
                Result.NOT_RETURNED,
                "the way back did not end at the initial state, so a gradient was not the same when it was "
                "computed again: make the loss deterministic, or use ReverseHyperGradient",
            )
        return None

    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run."""
        return evaluated(problem, hyper)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""

    def _rows(self, problem: AbstractMoment) -> int:
        bits = problem.horizon * math.log2(1 / self.least_momentum)
        return math.ceil(bits / SPILLED)


class _Run(NamedTuple):
    """A problem whose steps are taken and undone in integers, of one task or of many side by side."""

    problem: AbstractMoment
    hyper: Hyper
    dynamics: ReversibleDescent
    over_tasks: Callable[..., Any]
    like: Params  # the parameters of one task, abstract

    def plan(self) -> Plan:
        whole = self.problem.whole(self.hyper)
        return self.dynamics.plan(self.like, whole, self.problem.horizon)

    def take(self, digits: Digits, t: Step, turn: Turn) -> Digits:
        whole, batch = self.problem.whole(self.hyper), self.problem.train_batch(t)

        def one(digits: Digits, batch: Batch) -> Digits:
            return self.dynamics.take(digits, whole, batch, t=t, turn=turn, like=self.like)

        return self.over_tasks(one)(digits, batch)

    def undo(self, digits: Digits, t: Step, turn: Turn, *, words: PyTree) -> tuple[Digits, PyTree]:
        whole, batch = self.problem.whole(self.hyper), self.problem.train_batch(t)

        def one(digits: Digits, batch: Batch, words: PyTree) -> tuple[Digits, PyTree]:
            return self.dynamics.undo(
                digits, whole, batch, t=t, turn=turn, tape=words, like=self.like
            )

        return self.over_tasks(one)(digits, batch, words)


def _run(problem: AbstractMoment, hyper: Hyper) -> _Run:
    dynamics, over_tasks = problem.dynamics, lambda function: function
    if isinstance(dynamics, TaskDynamics):
        dynamics, over_tasks = dynamics.single, jax.vmap
    if not isinstance(dynamics, ReversibleDescent):
        raise TypeError(
            f"ReversibleHyperGradient got dynamics of type {type(dynamics).__name__}, but only a "
            "rfho.ReversibleDescent runs backwards: use it, or ReverseHyperGradient"
        )
    like = jax.eval_shape(dynamics.init, problem.whole(hyper)).params
    return _Run(problem, hyper, dynamics, over_tasks, like)


class _Ended(NamedTuple):
    """The end of a run.

    Attributes:
        state: the last.
        tape: what left the heads of the buffers on the way, row by row.
    """

    state: ReversibleState
    tape: PyTree


def _forward(
    run: _Run, start: ReversibleState, turns: Turn, *, tape: PyTree, steps: Array
) -> _Ended:
    def step(t: Array, at: tuple[Digits, PyTree]) -> tuple[Digits, PyTree]:
        digits, tape = at
        turn = jax.tree.map(lambda leaf: leaf[t], turns)
        # The row is written at every step and stays only when the turn spills: no branch, no copy.
        tape = jax.tree.map(_written, tape, turn.row, words_at_risk(digits, start.params))
        return run.take(digits, t, turn), tape

    digits, tape = jax.lax.fori_loop(0, steps, step, (start.digits, tape))
    end = run.dynamics.view(digits, start._replace(t=start.t + steps))
    return _Ended(end, tape)


def _backward(
    run: _Run, ended: _Ended, turns: Turn, *, cotangents: PyTree, steps: Array
) -> tuple[PyTree, Digits]:
    chain = chain_of(run.problem, run.hyper, Keep.GRADIENTS)

    def step(back: Array, at: tuple[PyTree, Digits]) -> tuple[PyTree, Digits]:
        cotangents, digits = at
        t = steps - 1 - back
        turn = jax.tree.map(lambda leaf: leaf[t], turns)
        words = jax.tree.map(lambda tape, row: tape[row], ended.tape, turn.row)
        digits, gradient = run.undo(digits, t, turn, words=words)
        state = run.dynamics.view(digits, ended.state)._replace(t=jnp.full_like(ended.state.t, t))
        return chain.pull_back(cotangents, state, gradient, t), digits

    return jax.lax.fori_loop(0, steps, step, (cotangents, ended.state.digits))


def _written(tape: Array, row: Array, words: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(tape, words, row, 0)


def _same(left: PyTree, right: PyTree) -> Bool[Array, ""]:
    equal = jax.tree.map(lambda a, b: jnp.all(a == b), left, right)
    return jax.tree.reduce(jnp.logical_and, equal)


def _finite(params: Params) -> Bool[Array, ""]:
    finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), params)
    return jax.tree.reduce(jnp.logical_and, finite)


def _mean_bits(plan: Plan, params: Params) -> Array:
    bits = jax.tree.map(lambda w, b: w.size * b, params, plan.bits)
    return jax.tree.reduce(jnp.add, bits) / tree.size(params)
