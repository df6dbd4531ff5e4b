r"""The losses of all folds as one: what is fitted, what is left out, and the table with room around it.

With features x scaled by the roots of their penalties every fold minimises the same well-conditioned loss,

.. math:: L_k(V) = \sum_{i \notin k} w_i\, \ell(y_i, (x_i / \sqrt\lambda) V_k + b_k) + \tfrac12 \lVert V_k \rVert^2 .
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

import rfho
from rfho.dynamics import Newton


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


class Place(NamedTuple):
    """A point that the search has visited.

    Attributes:
        value: f.
        penalties: λ, shape (groups or more, 1 or outputs).
        params: the models of all folds there.
    """

    value: float
    penalties: np.ndarray
    params: Any


class Gain(NamedTuple):
    """How much better one place does than another on examples left out, in nats.

    Attributes:
        nats: the sum over examples.
        error: the standard error of that sum, from the differences example by example.
    """

    nats: float
    error: float


class _Loss(eqx.Module):
    """Σ_k L_k / n."""

    task: Task = eqx.field(static=True)

    def __call__(self, w: Any, hyper: Any, data: Examples) -> Array:
        fit = jnp.sum(self.task.loss(data.y, _predicted(w, hyper, data)) * data.train)
        ridge = 0.5 * jnp.sum(w["W"] ** 2) + _FREE * jnp.sum(w["b"] ** 2)
        return (fit + ridge) / examples_in(data)


class _Objective(eqx.Module):
    """f: what examples left out cost, and the prior."""

    task: Task = eqx.field(static=True)

    def __call__(self, w: Any, hyper: Any, data: Examples) -> Array:
        left_out = jnp.sum(self.task.loss(data.y, _predicted(w, hyper, data)) * data.valid)
        centre, precision = data.prior
        away = jnp.sum((jnp.log(hyper["penalties"]) - centre) ** 2)
        # Spread over outputs, a group has still one penalty's worth of prior for each of them.
        prior = 0.5 * precision * away / examples_in(data)
        return self.task.score(left_out / jnp.sum(data.valid)) + prior


def gain_of(task: Task, here: Place, there: Place, data: Examples) -> Gain:
    """What ``there`` gains over ``here``, on the examples left out."""
    pair = [(place.params, {"penalties": place.penalties}) for place in (here, there)]
    nats, error = _gain(task, pair, data)
    return Gain(float(nats), float(error))


@eqx.filter_jit
def _gain(task: Task, pair: Any, data: Examples) -> tuple[Array, Array]:
    seen = jnp.sum(data.valid, axis=1)
    total = jnp.sum(seen)
    scores, parts = [], []
    for w, hyper in pair:
        losses = jnp.sum(task.loss(data.y, _predicted(w, hyper, data)) * data.valid, axis=1)
        score, slope = jax.value_and_grad(task.score)(jnp.sum(losses) / total)
        scores.append(score)
        # What each example moves the score by (the delta method).
        parts.append(slope * (losses / jnp.where(seen > 0, seen, 1) - jnp.sum(losses) / total))
    # An example that several folds leave out is still one.
    count = jnp.minimum(total, examples_in(data))
    spread = jnp.sum(seen * (parts[0] - parts[1]) ** 2) / total
    return count * (scores[0] - scores[1]), jnp.sqrt(count * spread)


def _predicted(w: Any, hyper: Any, data: Examples) -> Float[Array, "examples folds outputs"]:
    scale = jnp.exp(-0.5 * jnp.log(hyper["penalties"]))[data.group].T
    # A row for each fold and output: so the compiler's product for the gradient is Rᵀ x, ten times as fast as xᵀ R.
    flat = (w["W"] * scale).reshape(-1, w["W"].shape[-1])
    return (data.x @ flat.T).reshape(-1, *w["W"].shape[:-1]) + w["b"]


def examples_in(data: Examples) -> Array:
    """n, by weight: of the fold that leaves nothing out."""
    return jnp.maximum(jnp.sum(data.train[:, -1]), 1.0)


_FREE = 1e-4
"""Intercepts are penalised as much as it takes to have one minimum."""


def problem_of(task: Task, start: Any, examples: Examples) -> rfho.Problem:
    """The folds' training, from the parameters ``start``, and f."""
    dynamics = Newton(_Loss(task), start, products=60)
    return rfho.Problem(dynamics, _Objective(task), train=examples, valid=examples, horizon=4)


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
