r"""A penalty for each group of features, by implicit differentiation through all folds at once.

The folds' models (`penalised_folds`) are found by Newton's method, warm from one outer step to the next; λ
minimises the loss on the examples left out,

.. math:: f(\lambda) = \tfrac1n \Bigl( \sum_k \sum_{i \in k} w_i\, \ell(y_i, \ldots)
          + \sum_g \tfrac{(\log \lambda_g - \log \lambda_0)^2}{2 \tau^2} \Bigr) .

λ_0 is the best penalty that all groups share, and τ says how far from it groups are expected to lie: without
that prior many penalties fit the folds. In the end log λ goes back towards log λ_0 by the factor of James and
Stein, 1 - (G - 2) / 2g for G penalties and a gain of g nats: where the gain is no more than what G useless
penalties would show, it is not believed. g is what the examples left out are sure of: their gain less its own
standard error, from the differences example by example (the rule of one standard error; Breiman et al.,
Classification and Regression Trees, 3.4.3). One more "fold" leaves nothing out; it is the model that is returned.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

import rfho
from rfho.adapters.penalised_folds import Examples, Gain, Place, Task, gain_of, problem_of, room_for
from rfho.outer import TunerState

SHARED = (8.0, 6.0, 4.5, 3.0, 1.5, 0.0, -2.0, -4.0)
"""log λ_0 as it is tried, from stiff to loose, each warm from the one before."""

_PATIENCE, _GAIN = 6, 1e-3
"""The search ends once so many outer steps have gained no more than this, relative to f."""

_SETTLED, _SETTLING = 1e-4, 30
"""The norm of ∂L/n at which the returned model is done, and the most visits to get there."""


class Found(NamedTuple):
    """Where the search ended.

    Attributes:
        penalties: λ, shape (groups or more, 1 or outputs).
        shared: λ_0.
        coef: shape (features, outputs), of all examples.
        intercept: shape (outputs,).
        values: f at every outer step; first that of λ_0.
        settled: whether the model is a minimum.
    """

    penalties: np.ndarray
    shared: float
    coef: np.ndarray
    intercept: np.ndarray
    values: list[float]
    settled: bool


def search(
    task: Task,
    examples: Examples,
    *,
    outputs: int,
    groups: int,
    per_output: bool,
    spread: float,
    steps: int,
) -> Found:
    """The penalties, and the model of all examples.

    Args:
        task: classes or numbers.
        examples: all of the data, as yet without a prior.
        outputs: columns of V.
        groups: how many there are.
        per_output: whether each output has penalties of its own.
        spread: τ.
        steps: outer steps at most.
    """
    widths = (room_for(groups), outputs if per_output else 1)
    folds, features = examples.train.shape[1], examples.x.shape[1]
    count = float(jnp.max(jnp.sum(examples.train, axis=0)))
    ends = jnp.asarray([1e-4, max(1e3, 30 * count)], jnp.float32)
    domain = {"penalties": rfho.LogBox(ends[0], ends[1])}
    start = {
        "W": jnp.zeros((folds, outputs, features), jnp.float32),
        "b": jnp.zeros((folds, outputs), jnp.float32),
    }
    problem = problem_of(task, start, examples)
    tuner = rfho.Tuner(_METHOD, _OUTER, domain)
    state = tuner.init(problem, {"penalties": jnp.ones(widths, jnp.float32)})
    shared, begin, state = _best_shared(tuner, problem, state, widths)
    prior = jnp.asarray([shared, 1 / spread**2], jnp.float32)
    examples = examples._replace(prior=prior)
    problem = problem_of(task, start, examples)
    values, best = [begin.value], begin
    for _ in range(steps):
        before = state.free
        state, estimate = tuner.step(problem, state)
        values.append(float(estimate.value))
        if values[-1] < best.value:
            best = _place(values[-1], before, state)
        if not np.isfinite(values[-1]) or _idle(values):
            break
    gain = gain_of(task, begin, best, examples)
    penalties = _believed(gain, best, shared=shared, groups=groups)
    free = {"penalties": jnp.asarray(penalties, jnp.float32)}
    state, settled = _settle(tuner, problem, state._replace(free=free))
    params = state.carry.state.params
    scale = np.exp(-0.5 * np.log(penalties))[np.asarray(examples.group)]
    coef = scale * np.asarray(params["W"][-1].T, float)
    intercept = np.asarray(params["b"][-1], float)
    return Found(penalties, float(np.exp(shared)), coef, intercept, values, settled)


def _place(value: float, free: Any, after: TunerState) -> Place:
    """Where a step began: ``after`` it, the models are those of ``free``."""
    return Place(value, free["penalties"], after.carry.state.params)


def _best_shared(
    tuner: rfho.Tuner, problem: rfho.Problem, state: TunerState, widths: tuple[int, int]
) -> tuple[float, Place, TunerState]:
    """The best log λ_0, that place, and the state to go on from; all by the one compiled step."""
    slots, tried = state.slots, {}
    for shared in SHARED:
        penalties = jnp.full(widths, np.exp(shared), jnp.float32)
        free = {"penalties": jnp.clip(penalties, tuner.domain["penalties"].lower)}
        after, estimate = tuner.step(problem, state._replace(free=free, slots=slots))
        place = _place(float(estimate.value), free, after)
        tried[shared] = (place, after._replace(free=free, slots=slots))
        state = after
        if place.value > 1.5 * min(there.value for there, _ in tried.values()) > 0:
            break  # looser penalties are worse still
    shared = min(tried, key=lambda log: np.nan_to_num(tried[log][0].value, nan=np.inf))
    return shared, *tried[shared]


def _believed(gain: Gain, best: Place, *, shared: float, groups: int) -> np.ndarray:
    """The penalties, nearer to the shared one the less they have gained; those of no group are that one."""
    away = np.log(np.asarray(best.penalties, float)) - shared
    useless = max(groups * away.shape[1] - 2, 0)
    sure = gain.nats - gain.error
    kept = max(0.0, 1.0 - useless / (2 * sure)) if sure > 0 else 0.0
    return np.exp(shared + kept * away)


def _settle(tuner: rfho.Tuner, problem: rfho.Problem, state: TunerState) -> tuple[TunerState, bool]:
    """Newton steps at the λ that was found, until the model stands."""
    free = state.free
    for _ in range(_SETTLING):
        state, estimate = tuner.step(problem, state._replace(free=free))
        if float(estimate.aux.stats["stationarity"]) <= _SETTLED:
            return state._replace(free=free), True
    return state._replace(free=free), False


def _idle(values: list[float]) -> bool:
    if len(values) <= _PATIENCE:
        return False
    before, lately = min(values[:-_PATIENCE]), min(values[-_PATIENCE:])
    return before - lately <= _GAIN * abs(before)


_METHOD = rfho.ImplicitHyperGradient(
    rfho.solvers.CG(60), tolerance=1e-2, inner_tolerance=_SETTLED, audit=None
)


_OUTER = optax.adam(0.25)
"""In log λ: one object, so that all searches share their programs."""
