"""rfho's methods in the form of their opponents: the public interface, stepped by `rfho.Tuner`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

import rfho
from benchmarks.bilevel.peers import Peer, Rates
from benchmarks.bilevel.problems import Batches, Task
from rfho.hyper_gradients import SARAH, AbstractHyperGradient
from rfho.solvers import CG

Make = Callable[[Any], AbstractHyperGradient]
"""A method of an inner rate, which may be a function of the outer step."""

METHODS: dict[str, Make] = {
    "SingleLoop (SOBA)": rfho.SingleLoopHyperGradient,
    "SingleLoop, average 0.1 (MA-SOBA)": lambda rate: rfho.SingleLoopHyperGradient(
        rate, average=0.1
    ),
    "VarianceReduced (SABA)": rfho.VarianceReducedHyperGradient,
    "VarianceReduced, SARAH (SRBA)": lambda rate: rfho.VarianceReducedHyperGradient(
        rate, SARAH(period=500)
    ),
    "Alternating (AmIGO)": lambda rate: rfho.AlternatingHyperGradient(rate, every=10, products=10),
    "FirstOrder (F2SA)": lambda rate: rfho.FirstOrderHyperGradient(penalty=10.0, every=10),
    "DynamicBarrier (BOME)": lambda rate: rfho.DynamicBarrierHyperGradient(rate, every=10),
}


def single_loop_on_all_data(task: Task, rate: float) -> Peer:
    """SOBA on all examples at once, every outer variable moved by the sign of its slope alone.

    Training and its linear system read the data together, and without noise a sign is right: ten steps set every
    weight. 2 is the step in σ(x) from a half to 0.88 or 0.12.
    """
    dynamics = rfho.Descent(task.loss, lambda hyper: optax.sgd(rate), task.w)
    data = task.train.arrays, task.valid.arrays
    problem = rfho.Problem(dynamics, task.objective, *data, horizon=1)
    method, domain = rfho.SingleLoopHyperGradient(rate), rfho.Box(*task.bounds)
    return stepped(lambda key: problem, rfho.Tuner(method, optax.sign_sgd(2.0), domain))


def single_loop_under_adam(task: Task, size: int) -> Peer:
    """SOBA with Adam inside at a falling rate, larger batches, and signs outside.

    Adam brings a badly scaled loss down where no single rate suits all parameters; signs bring penalties to
    where they should be at any size of their slopes.
    """
    task = task.sized(size)

    def optim(hyper: Any) -> optax.GradientTransformation:
        return optax.adam(lambda t: 0.02 / (1 + t / 1000))

    def problem_of(key: jax.Array) -> rfho.Problem:
        dynamics = rfho.Descent(task.loss, optim, task.w)
        train, valid = (
            Partial(_drawn, side, one)
            for side, one in zip((task.train, task.valid), jax.random.split(key), strict=True)
        )
        return rfho.Problem(dynamics, task.objective, train, rfho.Fresh(valid), horizon=1)

    method, domain = rfho.SingleLoopHyperGradient(0.01), rfho.Box(*task.bounds)
    return stepped(problem_of, rfho.Tuner(method, optax.sign_sgd(0.5), domain))


def _drawn(side: Batches, key: jax.Array, t: Any) -> tuple[jax.Array, ...]:
    """A batch by the key of the race's own step, so that runs differ."""
    return side.batch(jax.random.randint(key, (), 0, side.number))


def of_its_own(task: Task) -> dict[str, Callable[[], Peer]]:
    """What suits data cleaning, and what suits covtype."""
    if task.curvatures is not None:
        return {"SingleLoop on all data, signs outside": lambda: single_loop_on_all_data(task, 0.4)}
    if task.test is not None:
        name = "SingleLoop, batches of 256, Adam inside, signs outside"
        return {name: lambda: single_loop_under_adam(task, 256)}
    return {}


def stepped(problem_of: Callable[[jax.Array], rfho.Problem], tuner: rfho.Tuner) -> Peer:
    """A tuner whose rates are fixed, on the problem of a key."""

    def start(x: jax.Array, w: jax.Array) -> Any:
        return tuner.init(problem_of(jax.random.key(0)), jnp.array(x))

    def step(carry: Any, key: jax.Array, rates: Rates) -> Any:
        return tuner.step(problem_of(key), carry)[0]

    return Peer(start, step, rated=False)


def on_all_data(task: Task) -> Peer:
    """HOAG with Newton's method inside and Rprop outside, every step on all examples.

    Rprop chooses its own rates, beginning at 2; so there is none to try.
    """
    dynamics = rfho.dynamics.Newton(task.loss, task.w, products=10)
    data = task.train.arrays, task.valid.arrays
    problem = rfho.Problem(dynamics, task.objective, *data, horizon=1)
    method = rfho.ImplicitHyperGradient(CG(max_products=10), tolerance=0.01, audit=None)
    return stepped(lambda key: problem, rfho.Tuner(method, optax.rprop(2.0), rfho.Box(-12.0, 4.0)))


def as_peer(make: Make, task: Task) -> Peer:
    """A method with plain gradient descent outside."""
    reduced = isinstance(make(0.1), rfho.VarianceReducedHyperGradient)
    data = (
        (task.train.listed(), task.valid.listed())
        if reduced
        else (task.train, rfho.Fresh(task.valid))
    )

    def parts(rates: Rates) -> tuple[rfho.Problem, rfho.Tuner]:
        dynamics = rfho.Descent(task.loss, lambda hyper: optax.sgd(rates.inner), task.w)
        problem = rfho.Problem(dynamics, task.objective, *data, horizon=10)
        # Rates are operands of the compiled program here, and a function passes them on.
        method = make(lambda k: rates.inner)
        return problem, rfho.Tuner(method, optax.sgd(rates.outer))

    def start(x: jax.Array, w: jax.Array) -> Any:
        problem, tuner = parts(Rates(0.1, 0.1))
        # The memory of what is begun is handed on, so x is given as an array of its own.
        return tuner.init(problem, jnp.array(x))

    def step(carry: Any, key: jax.Array, rates: Rates) -> Any:
        problem, tuner = parts(rates)
        return tuner.step(problem, carry)[0]

    return Peer(start, step)
