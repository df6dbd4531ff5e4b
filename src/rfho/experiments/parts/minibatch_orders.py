"""What a training run comes to under orders of minibatches that its hyperparameters were not chosen on."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import rfho
from rfho.experiments.parts.image_data import Part
from rfho.experiments.parts.network import Examples

Accuracy = Callable[[Any, Examples], Array]
"""The share of some examples that trained parameters get right."""

CONSTANT_RATES = tuple(np.geomspace(0.003, 1.0, 16).tolist())
"""Among these is the best constant rate, with which a schedule is compared."""


def trained_anew(
    problem: rfho.Problem, hyper: Any, accuracy: Accuracy, *, test: Part, repeats: int, seed: int
) -> dict[str, np.ndarray]:
    """E(w_T) as ``loss`` and ``test accuracy %``, once for each of several orders of minibatches.

    Args:
        problem: one that trains on a `rfho.Stream`.
        hyper: λ.
        accuracy: how the trained parameters are judged.
        test: on which examples.
        repeats: how many orders.
        seed: of the orders; not the one of the stream.
    """
    keys = jax.random.split(jax.random.key(seed), repeats)
    hyper, examples = jax.tree.map(jnp.asarray, (hyper, test))
    loss, right = _trained(problem, hyper, accuracy, test=examples, keys=keys)
    return {"loss": np.asarray(loss), "test accuracy %": 100 * np.asarray(right)}


@eqx.filter_jit
def _trained(
    problem: rfho.Problem, hyper: Any, accuracy: Accuracy, *, test: Examples, keys: Array
) -> tuple[Array, Array]:
    def one(key: Array) -> tuple[Array, Array]:
        fresh = eqx.tree_at(lambda p: p.train.key, problem, key)
        value, params = rfho.train(fresh, hyper)
        return value, accuracy(params, test)

    return jax.lax.map(one, keys)
