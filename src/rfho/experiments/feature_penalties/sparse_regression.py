r"""Softmax regression on sparse examples, with a penalty for each feature.

.. math:: L(W, \lambda) = \mathrm{CE}(W) + \tfrac12 \sum_j e^{\lambda_j} \lVert w_j \rVert^2

W has one row w_j for each feature; products with sparse inputs leave out their zeros.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from rfho.experiments.feature_penalties.data import SparseExamples

Hyper = Float[Array, " features"]
Params = Float[Array, "features classes"]


def cross_entropy(params: Params, hyper: Hyper, batch: SparseExamples) -> Float[Array, ""]:
    """The mean over examples: E, on the validation set."""
    inputs, labels = batch
    losses = optax.softmax_cross_entropy_with_integer_labels(inputs @ params, labels)
    return jnp.mean(losses)


def penalised_loss(params: Params, hyper: Hyper, batch: SparseExamples) -> Float[Array, ""]:
    """L: the cross-entropy, and half of Σ_j exp(λ_j) ‖w_j‖²."""
    penalty = jnp.sum(jnp.exp(hyper) * jnp.sum(params**2, axis=1))
    return cross_entropy(params, hyper, batch) + 0.5 * penalty


@jax.jit
def accuracy(params: Params, examples: SparseExamples) -> Float[Array, ""]:
    """The share of examples whose largest logit is that of their label."""
    inputs, labels = examples
    return jnp.mean((jnp.argmax(inputs @ params, axis=1) == labels).astype(params.dtype))
