"""Every method in every verb: the run of a verb is that of the method and Optax written out, or it is refused.

The seams between good parts are where faults lie, so this is one table: methods × verbs × data × dynamics,
with listeners, errors that are raised or returned, and a NaN in the middle. Every cell is right, or refused
by the sentence that the table names. All pairs of two columns occur; a test says so.
"""

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from zoo import ZOO

import rfho
from rfho.errors import Result

HORIZON, STEPS = 4, 3
OPTIM = optax.adam(0.02)


VERBS = ("hyper_gradient", "tune", "iterate", "tune_many", "warm restart")
DATA = ("arrays", "stream", "fresh", "host stream")
DYNAMICS = ("descent", "heavy ball", "written out")

X = np.random.default_rng(0).normal(size=(8, 3))
Y = X @ [1.0, -0.5, 0.3] + 0.1
START = jnp.array([0.5, -1.0, 0.2])


class Cell(NamedTuple):
    """One row of the table."""

    kind: str
    verb: str
    data: str
    dynamics: str


def loss(w, hyper, batch):
    x, y = batch
    return jnp.mean((x @ w - y) ** 2) / 2 + hyper["penalty"] * jnp.sum(w**2) / 2


def objective(w, hyper, batch):
    """NaN from outer step 1 on where the clock is above zero."""
    x, y, k = batch
    value = jnp.mean((x @ w - y) ** 2) + 0.01 * hyper["clock"]
    return jnp.where((hyper["clock"] > 0) & (k >= 1), jnp.nan, value)


def dynamics_of(name, settled):
    def rate(hyper):
        return 0.4 if settled else hyper["rate"]

    if name == "descent":
        return rfho.Descent(loss, lambda hyper: optax.sgd(rate(hyper)), START)
    if name == "heavy ball":
        return rfho.HeavyBall(loss, lambda hyper, t: rate(hyper), lambda hyper, t: 0.5, init=START)
    if name == "reversible":
        return rfho.ReversibleDescent(
            loss, lambda hyper, t: rate(hyper), lambda hyper, t: 0.5, init=START
        )
    return rfho.Dynamics(
        init, lambda state, hyper, batch: step(state, rate(hyper), hyper, batch), output
    )


def init(hyper):
    return {"w": START, "t": jnp.zeros((), jnp.int32), "key": jax.random.key(1)}


def step(state, rate, hyper, batch):
    """A mask and a number that are born in the step, a counter, and a loss with an aux."""
    key = jax.random.fold_in(state["key"], state["t"])
    mask = jax.random.bernoulli(key, 0.8, batch[0].shape)

    def masked(w, hyper, batch):
        x, y = batch
        return loss(w, hyper, (x * mask, y)), state["t"]

    gradient, seen = rfho.grad(masked, has_aux=True)(state["w"], hyper, batch)
    return state | {"w": state["w"] - rate * gradient, "t": seen + 1}


def output(state):
    return state["w"]


def batch_of(t):
    rows = np.random.default_rng(int(t)).integers(0, 8, 4)
    return X[rows], Y[rows]


TRAIN = {
    "arrays": (jnp.asarray(X), jnp.asarray(Y)),
    "stream": rfho.Stream((jnp.asarray(X), jnp.asarray(Y)), 4, key=0),
    "fresh": rfho.Fresh(
        lambda k: rfho.Stream(
            (jnp.asarray(X), jnp.asarray(Y)), 4, jax.random.fold_in(jax.random.key(0), k)
        )
    ),
    "host stream": rfho.HostStream(batch_of),
}


def problem_of(cell):
    kind = ZOO[cell.kind]
    name = "reversible" if kind.reversible else cell.dynamics
    valid = lambda k: (jnp.asarray(X[:4]), jnp.asarray(Y[:4]), k)  # noqa: E731
    return rfho.Problem(
        dynamics_of(name, kind.settled), objective, TRAIN[cell.data], valid, horizon=HORIZON
    )


def hyper_of(cell, clock=-1.0, penalty=0.3):
    rate = {} if ZOO[cell.kind].settled else {"rate": jnp.asarray(0.2)}
    return rate | {"penalty": jnp.asarray(penalty), "clock": jnp.asarray(clock)}


def method_of(cell):
    method = ZOO[cell.kind].method
    return rfho.WarmRestartHyperGradient(method) if cell.verb == "warm restart" else method


def written_out(method, problem, hyper, steps=STEPS):
    """λ after each outer step by a method and Optax alone: neither a verb nor a tuner."""
    estimate = method.estimate if method.driven_from_python else eqx.filter_jit(method.estimate)
    update = jax.jit(OPTIM.update)
    carry, slots, after = method.init(problem.at(0), hyper), OPTIM.init(hyper), []
    for k in range(steps):
        found, carry = estimate(problem.at(k), hyper, carry)
        updates, slots = update(found.hypergradient, slots, hyper)
        hyper = optax.apply_updates(hyper, updates)
        after.append((found.value, hyper))
    return after


@eqx.filter_jit
def by_scan(problem, hyper):
    """∇f by JAX alone, over a scan of the steps."""
    moment = problem.at(0)

    def value(hyper):
        def step(state, t):
            return moment.step(state, hyper, t), None

        state, _ = jax.lax.scan(step, moment.init(hyper), jnp.arange(HORIZON))
        return moment.evaluate(moment.dynamics.output(state), hyper)

    return jax.grad(value)(hyper)


def runs(cell, problem, hyper, **settings):
    """The reports of a verb, and the solution where it gives one."""
    settings = {"method": method_of(cell), "optim": OPTIM, "steps": STEPS} | settings
    if cell.verb == "iterate":
        return list(rfho.iterate(problem, hyper, **settings)), None
    if cell.verb == "tune_many":
        solutions = rfho.tune_many(problem, [hyper, hyper_of(cell, penalty=0.5)], **settings)
        return solutions[0].history, solutions[0]
    solution = rfho.tune(problem, hyper, **settings)
    return solution.history, solution


class Heard(rfho.Listener):
    """What a listener is told, by name."""

    def __init__(self):
        self.events = []

    def start(self, run):
        self.events.append("start")

    def step(self, report):
        self.events.append(report.step)

    def close(self, result):
        self.events.append(result)


def cells():
    """Each method in each verb; data and dynamics turn with both, so that all pairs occur."""
    for i, kind in enumerate(ZOO):
        for j, verb in enumerate(VERBS):
            data, dynamics = (
                DATA[(2 * i + j + i // 2) % len(DATA)],
                DYNAMICS[(i + j + i // 3) % len(DYNAMICS)],
            )
            yield Cell(kind, verb, data, dynamics)


def refusal(cell):
    """The sentence with which a cell is refused; None where it must be right."""
    if cell.verb == "warm restart" and not ZOO[cell.kind].method.trains_anew:
        return "not one training run that could begin anywhere"
    if ZOO[cell.kind].settled and cell.dynamics == "written out":
        return "describe training as a rfho.Descent"
    if cell.kind == "implicit" and cell.data != "arrays":
        return "no common point"
    if cell.kind == "variance reduced" and cell.data != "arrays":
        return "which of a fixed list"
    return None


CELLS = tuple(cells())
# Every third one: each method is left in one verb or two, and all other pairs occur; `make soak` runs all.
SAMPLE = set(CELLS[::3])


def test_all_pairs_of_columns_occur():
    columns = (tuple(ZOO), VERBS, DATA, DYNAMICS)
    for a, b in itertools.combinations(range(4), 2):
        wanted = set(itertools.product(columns[a], columns[b]))
        assert wanted == {(cell[a], cell[b]) for cell in CELLS}
        assert (a, b) == (0, 1) or len(columns[a]) > 5 or wanted == {(c[a], c[b]) for c in SAMPLE}


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(c, marks=[] if c in SAMPLE else pytest.mark.soak, id=", ".join(c))
        for c in CELLS
    ],
)
@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
def test_a_verb_is_the_method_written_out_or_refused(cell):
    kept = once if cell.verb == "hyper_gradient" else compared
    sentence = refusal(cell)
    if sentence is None:
        kept(cell)
        return
    with pytest.raises((TypeError, ValueError), match=sentence):
        kept(cell)


def once(cell):
    """One estimate: plain, in a program of the user's, and for two λ side by side."""
    problem, hyper, method = problem_of(cell), hyper_of(cell), method_of(cell)
    found = rfho.hyper_gradient(problem, hyper, method)
    ((value, _),) = written_out(method, problem, hyper, steps=1)
    np.testing.assert_allclose(found.value, value, rtol=1e-10)
    if ZOO[cell.kind].exact:
        for name, slope in by_scan(problem, hyper).items():
            np.testing.assert_allclose(found.hypergradient[name], slope, rtol=1e-8, atol=1e-12)
    if method.driven_from_python:
        return
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), hyper)
    pair = jax.jit(jax.vmap(lambda hyper: rfho.hyper_gradient(problem, hyper, method)))(both)
    for name, leaf in found.hypergradient.items():
        np.testing.assert_allclose(pair.hypergradient[name], [leaf, leaf], rtol=1e-8, atol=1e-12)


def compared(cell):
    """A run without and one with a NaN in the middle, of the same programs."""
    problem, hyper, heard = problem_of(cell), hyper_of(cell), Heard()
    reports, _ = runs(cell, problem, hyper, listeners=[heard])
    expected = written_out(method_of(cell), problem, hyper)
    for report, (value, after) in zip(reports, expected, strict=True):
        np.testing.assert_allclose(report.value, value, rtol=1e-9, atol=1e-12)
        for name, leaf in after.items():
            np.testing.assert_allclose(report.hyper[name], leaf, rtol=1e-9, atol=1e-12)
    told = [event for event in heard.events if isinstance(event, int)]
    assert told == sorted(told)
    assert set(told) == set(range(1, STEPS + 1))
    assert heard.events[0] == "start"
    assert heard.events[-1] in (Result.STEPS_DONE, Result.HORIZON_REACHED)
    broken(cell, problem, hyper_of(cell, clock=1.0), heard=Heard())


def broken(cell, problem, hyper, heard):
    """The first step is good, the second NaN: an error with all that was found, or a result."""
    loud = {} if cell.verb == "iterate" else {"throw": True}
    with pytest.raises(rfho.HyperGradientError, match="objective is nan") as raised:
        runs(cell, problem, hyper, listeners=[heard], **loud)
    assert heard.events[-1] is Result.NON_FINITE_VALUE
    assert [report.step for report in raised.value.solution.history] == [1]
    if cell.verb != "iterate":
        _, solution = runs(cell, problem, hyper, throw=False)
        assert solution.result is Result.NON_FINITE_VALUE
        assert np.isfinite(jax.tree.leaves(jax.device_get(solution.hyper))).all()
