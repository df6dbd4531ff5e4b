r"""A transformer that learns from documents, and the derivative of what it costs by the weight of each.

.. math:: L_t(w, \lambda) = \frac1{|b_t|} \sum_{i \in b_t} \lambda_i \ell_i(w), \qquad
          g_i = \frac{d E(w_T)}{d \lambda_i}\Big|_{\lambda = 1}

The whole run is one sweep over T steps. A shorter horizon K cuts the run into T / K pieces, and each takes what
came before it as given; so every document has a derivative still, that of the loss at most K steps later.
"""

import math
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

import rfho
from rfho.experiments.parts.transformer import Losses, Transformer

Batch = tuple[Int[Array, "size length"], Int[Array, " size"]]
"""Documents and their numbers."""

T = TypeVar("T")


def training(
    model: Transformer,
    documents: Int[np.ndarray, "n length"],
    valid: Int[np.ndarray, "m length"],
    index: Int[np.ndarray, "rows size"],
    *,
    rate: float,
    window: int,
) -> rfho.Problem:
    """The transformer on batches of documents, one for each row of ``index``; λ has a weight for each document.

    Args:
        model: as it begins.
        documents: to learn from.
        valid: documents whose mean loss is the objective.
        index: numbers of documents.
        rate: of Adam.
        window: K, steps of a piece, which is the problem's horizon.

    A piece is judged by as many documents as it trains on, if ``valid`` has so many.
    """
    init, rest = eqx.partition(model, eqx.is_array)
    losses = Losses(rest, model.places.shape[0] + 1)

    def loss(params: Any, weights: Float[Array, " n"], batch: Batch) -> Array:
        documents, numbers = batch
        return jnp.mean(weights[numbers] * losses(params, documents))

    def objective(params: Any, weights: Float[Array, " n"], documents: Array) -> Array:
        return jnp.mean(losses(params, documents))

    size = index.shape[1]
    judging = min(window * size, len(valid))
    return rfho.Problem(
        rfho.Descent(loss, lambda _: rfho.optim.adam(rate, eps=1e-4), init),
        rfho.in_chunks(objective, math.gcd(judging, size)),
        rfho.Indexed((documents, np.arange(len(documents))), index),
        rfho.Stream(valid, judging, 0),
        window,
    )


def with_functions_of(first: T, other: T) -> T:
    """``other`` with the functions of ``first``: what is compiled for one serves both."""
    return eqx.combine(
        eqx.filter(other, eqx.is_array), eqx.filter(first, eqx.is_array, inverse=True)
    )


def derivative(problem: rfho.Problem) -> Float[np.ndarray, " n"]:
    """g, summed over the pieces of a run: each has the problem's horizon K, which is T where it is one."""
    state, total = problem.init(blank_weights(problem)), 0.0
    for k in range(len(problem.train.index) // problem.horizon):
        found, state = _of_piece(problem, state, jnp.asarray(k))
        total = total + np.asarray(found)
    return np.asarray(total)


@eqx.filter_jit
def _of_piece(problem: rfho.Problem, state: Any, k: Array) -> tuple[Float[Array, " n"], Any]:
    moment = problem.at(k).later(k * problem.horizon).going_on(state)
    method = rfho.ReverseHyperGradient(rfho.Recompute())
    estimate, _ = method.estimate(moment, blank_weights(problem), None)
    return estimate.hypergradient, estimate.aux.state


@eqx.filter_jit
def went_on(problem: rfho.Problem, state: Any, t: Array, steps: Array) -> Any:
    """The state ``steps`` plain steps after step ``t``."""
    step = lambda k, state: problem.step(state, blank_weights(problem), t + k)  # noqa: E731
    return jax.lax.fori_loop(0, steps, step, state)


@eqx.filter_jit
def losses_of(losses: Losses, state: Any, documents: Int[Array, "n length"]) -> Float[Array, " n"]:
    """Of a model in training, document by document."""
    return jax.lax.map(lambda one: losses(state.params, one[None])[0], documents, batch_size=32)


def blank_weights(problem: rfho.Problem) -> Float[Array, " n"]:
    """One for each document."""
    return jnp.ones(problem.train.data[0].shape[0])


class Costs(NamedTuple):
    """Floating-point operations, as XLA counts them in the parts of a run before it optimises these.

    Attributes:
        step: of training.
        pull_back: of a step whose state and gradient are known.
        read: of the loss of a document and its derivative.
        score: of the loss of a document.
    """

    step: float
    pull_back: float
    read: float
    score: float

    def of_derivative(self, problem: rfho.Problem) -> float:
        """Of `derivative`: each step is taken, taken again, and pulled back; and pieces are judged."""
        steps = len(problem.train.index)
        judging = steps // problem.horizon * problem.valid.size
        # `rfho.in_chunks` reads once more where it is differentiated.
        judged = judging * (self.read + self.score)
        return steps * (2 * self.step + self.pull_back) + judged


def costs(problem: rfho.Problem) -> Costs:
    """Of the parts of a problem of `training`; nothing is run."""
    weights = blank_weights(problem)
    dynamics = cast("rfho.Descent", problem.dynamics)
    way = dynamics.way(rfho.Keep.GRADIENTS)
    batch = problem.train_batch(0)

    def pull_back(state: Any, memory: Any) -> Any:
        return way.pull_back(_inexact(state), state, memory, weights, batch)

    def loss(state: Any) -> Array:
        return dynamics.loss(state.params, weights, batch)

    def slope(state: Any) -> Any:
        return jax.grad(lambda params: loss(state._replace(params=params)))(state.params)

    remember = lambda state: way.remember(state, weights, batch)  # noqa: E731
    state = jax.eval_shape(problem.init, weights)
    _, memory = jax.eval_shape(remember, state)
    size = len(batch[0])
    return Costs(
        _operations(remember, state),
        _operations(pull_back, state, memory),
        _operations(slope, state) / size,
        _operations(loss, state) / size,
    )


def _inexact(state: Any) -> Any:
    return eqx.filter(state, eqx.is_inexact_array)


def _operations(function: Any, *arguments: Any) -> float:
    analysis = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return float(analysis["flops"])
