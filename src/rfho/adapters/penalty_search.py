r"""A penalty for each group of features, by implicit differentiation through all folds at once.

With features x scaled by the roots of their penalties every fold minimises the same well-conditioned loss,

.. math:: L_k(V) = \sum_{i \notin k} w_i\, \ell(y_i, (x_i / \sqrt\lambda) V_k + b_k) + \tfrac12 \lVert V_k \rVert^2 ,

by Newton's method, warm from one outer step to the next; λ minimises the loss on the examples left out,

.. math:: f(\lambda) = \tfrac1n \Bigl( \sum_k \sum_{i \in k} w_i\, \ell(y_i, \ldots)
          + \sum_g \tfrac{(\log \lambda_g - \log \lambda_0)^2}{2 \tau^2} \Bigr) .

λ_0 is the best penalty that all groups share, and τ says how far from it groups are expected to lie: without
that prior many penalties fit the folds. In the end log λ goes back towards log λ_0 by the factor of James and
Stein, 1 - (G - 2) / 2g for G penalties and a gain of g nats: where the gain is no more than what G useless
penalties would show, it is not believed. One more "fold" leaves nothing out; it is the model that is returned.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

import rfho
from rfho.dynamics import Newton
from rfho.outer import TunerState

SHARED = (8.0, 6.0, 4.5, 3.0, 1.5, 0.0, -2.0, -4.0)
"""log λ_0 as it is tried, from stiff to loose, each warm from the one before."""

_PATIENCE, _GAIN = 6, 1e-3
"""The search ends once so many outer steps have gained no more than this, relative to f."""

_SETTLED, _SETTLING = 1e-4, 30
"""The norm of ∂L/n at which the returned model is done, and the most visits to get there."""


class Examples(NamedTuple):
    """Everything that loss and objective see; K folds, and one that leaves nothing out.

    Attributes:
        x: inputs, dense or `jax.experimental.sparse.BCSR`.
        y: class numbers (n,), or targets (n, outputs).
        group: of each feature.
        train: shape (n, K + 1), the weights of examples in each fold's loss; likewise ``valid``.
        valid: as ``train``, of examples that are left out.
        prior: log λ_0 and 1 / τ².
    """

    x: Any
    y: Array
    group: Int[Array, " features"]
    train: Float[Array, "examples folds"]
    valid: Float[Array, "examples folds"]
    prior: Float[Array, "2"]


class Task(NamedTuple):
    """What is fitted: ``loss`` of one prediction, and what the outer objective makes of their mean."""

    loss: Callable[[Array, Array], Array]
    score: Callable[[Array], Array]


def _softmax_loss(y: Array, z: Array) -> Array:
    """Cross-entropy of logits (n, folds, classes)."""
    return optax.softmax_cross_entropy_with_integer_labels(z, y[:, None])


def _sigmoid_loss(y: Array, z: Array) -> Array:
    """Cross-entropy of one logit for two classes."""
    return jnp.logaddexp(0.0, jnp.where(y[:, None] == 1, -z[..., 0], z[..., 0]))


def _squared_loss(y: Array, z: Array) -> Array:
    """Half of the squared error, summed over outputs."""
    return 0.5 * jnp.sum((z - y[:, None, :]) ** 2, axis=-1)


CLASSES = Task(_softmax_loss, lambda mean: mean)
TWO_CLASSES = Task(_sigmoid_loss, lambda mean: mean)
NUMBERS = Task(_squared_loss, lambda mean: 0.5 * jnp.log(mean))
"""The logarithm is the likelihood of a noise that nobody knows, so that the prior has a scale."""


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
        "W": jnp.zeros((features, folds, outputs), jnp.float32),
        "b": jnp.zeros((folds, outputs), jnp.float32),
    }
    problem = _problem(task, start, examples)
    tuner = rfho.Tuner(_METHOD, _OUTER, domain)
    state = tuner.init(problem, {"penalties": jnp.ones(widths, jnp.float32)})
    shared, value, state = _best_shared(tuner, problem, state, widths)
    prior = jnp.asarray([shared, 1 / spread**2], jnp.float32)
    problem = _problem(task, start, examples._replace(prior=prior))
    values = [value]
    best = (value, state.free)
    for _ in range(steps):
        before = state.free
        state, estimate = tuner.step(problem, state)
        values.append(float(estimate.value))
        if values[-1] < best[0]:
            best = (values[-1], before)
        if not np.isfinite(values[-1]) or _idle(values):
            break
    penalties = _believed(best, values[0], examples, shared=shared, spread=spread, groups=groups)
    free = {"penalties": jnp.asarray(penalties, jnp.float32)}
    state, settled = _settle(tuner, problem, state._replace(free=free))
    params = state.carry.state.params
    scale = np.exp(-0.5 * np.log(penalties))[np.asarray(examples.group)]
    coef = scale * np.asarray(params["W"][:, -1], float)
    intercept = np.asarray(params["b"][-1], float)
    return Found(penalties, float(np.exp(shared)), coef, intercept, values, settled)


def _best_shared(
    tuner: rfho.Tuner, problem: rfho.Problem, state: TunerState, widths: tuple[int, int]
) -> tuple[float, float, TunerState]:
    """The best log λ_0, f there, and the state to go on from; all by the one compiled step."""
    slots, tried = state.slots, {}
    for shared in SHARED:
        penalties = jnp.full(widths, np.exp(shared), jnp.float32)
        free = {"penalties": jnp.clip(penalties, tuner.domain["penalties"].lower)}
        after, estimate = tuner.step(problem, state._replace(free=free, slots=slots))
        tried[shared] = (float(estimate.value), after._replace(free=free, slots=slots))
        state = after
        if tried[shared][0] > 1.5 * min(value for value, _ in tried.values()) > 0:
            break  # looser penalties are worse still
    shared = min(tried, key=lambda log: np.nan_to_num(tried[log][0], nan=np.inf))
    return shared, *tried[shared]


def _believed(
    best: tuple[float, Any],
    start: float,
    examples: Examples,
    *,
    shared: float,
    spread: float,
    groups: int,
) -> np.ndarray:
    """The penalties, nearer to the shared one the less they have gained; those of no group are that one."""
    away = np.log(np.asarray(best[1]["penalties"], float)) - shared
    # The gain on examples left out alone, without what the prior took of it.
    gain = float(_examples(examples)) * (start - best[0])
    gain += 0.5 * float(np.sum(away**2)) / spread**2
    useless = max(groups * away.shape[1] - 2, 0)
    kept = max(0.0, 1.0 - useless / (2 * gain)) if gain > 0 else 0.0
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


class _Loss(eqx.Module):
    """Σ_k L_k / n."""

    task: Task = eqx.field(static=True)

    def __call__(self, w: Any, hyper: Any, data: Examples) -> Array:
        fit = jnp.sum(self.task.loss(data.y, _predicted(w, hyper, data)) * data.train)
        ridge = 0.5 * jnp.sum(w["W"] ** 2) + _FREE * jnp.sum(w["b"] ** 2)
        return (fit + ridge) / _examples(data)


class _Objective(eqx.Module):
    """f: what examples left out cost, and the prior."""

    task: Task = eqx.field(static=True)

    def __call__(self, w: Any, hyper: Any, data: Examples) -> Array:
        left_out = jnp.sum(self.task.loss(data.y, _predicted(w, hyper, data)) * data.valid)
        centre, precision = data.prior
        away = jnp.sum((jnp.log(hyper["penalties"]) - centre) ** 2)
        # Spread over outputs, a group has still one penalty's worth of prior for each of them.
        return self.task.score(left_out / jnp.sum(data.valid)) + 0.5 * precision * away / (
            _examples(data)
        )


def _predicted(w: Any, hyper: Any, data: Examples) -> Float[Array, "examples folds outputs"]:
    scale = jnp.exp(-0.5 * jnp.log(hyper["penalties"]))[data.group][:, None, :]
    flat = (scale * w["W"]).reshape(w["W"].shape[0], -1)
    return (data.x @ flat).reshape(-1, *w["W"].shape[1:]) + w["b"]


def _examples(data: Examples) -> Array:
    """n, by weight: of the fold that leaves nothing out."""
    return jnp.maximum(jnp.sum(data.train[:, -1]), 1.0)


_FREE = 1e-4
"""Intercepts are penalised as much as it takes to have one minimum."""


def _problem(task: Task, start: Any, examples: Examples) -> rfho.Problem:
    dynamics = Newton(_Loss(task), start, products=60)
    return rfho.Problem(dynamics, _Objective(task), train=examples, valid=examples, horizon=4)


_METHOD = rfho.ImplicitHyperGradient(
    rfho.solvers.CG(60), tolerance=1e-2, inner_tolerance=_SETTLED, audit=None
)


_OUTER = optax.adam(0.25)
"""In log λ: one object, so that all searches share their programs."""


def room_for(count: int) -> int:
    """``count`` rounded up to a size of which there are few, so that tables of similar size share a program."""
    if count <= 16:
        return 16
    unit = 2 ** (count.bit_length() - 3)
    return -(-count // unit) * unit


def on_device(x: Any) -> Any:
    """A SciPy matrix of compressed rows as JAX's, or an array, both in single precision."""
    if not hasattr(x, "indptr"):
        return jnp.asarray(x, jnp.float32)
    from jax.experimental.sparse import BCSR

    parts = (jnp.asarray(x.data, jnp.float32), jnp.asarray(x.indices), jnp.asarray(x.indptr))
    return BCSR(parts, shape=x.shape, indices_sorted=True, unique_indices=True)


def padded(x: Any, rows: int, columns: int) -> np.ndarray:
    """A dense table with rows and columns of zeros behind its own."""
    room = np.zeros((rows, columns), np.float32)
    room[: x.shape[0], : x.shape[1]] = x.toarray() if hasattr(x, "toarray") else x
    return room
