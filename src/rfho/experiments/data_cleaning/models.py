r"""The model of hyper-cleaning: softmax regression on weighted examples, by gradient descent from zero.

.. math:: L(w, \lambda) = \frac{1}{N} \sum_i \lambda_i \, \ell(w, x_i, y_i)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

import rfho
from rfho.experiments.data_cleaning.data import CleaningData

Params = dict[str, Array]
"""``weight`` of the shape (classes, pixels) and ``bias`` of the shape (classes,)."""

Hyper = dict[str, Array]
"""``weights`` λ of the examples, and the inner ``rate``."""


def cross_entropies(params: Params, images: Array, labels: Array) -> Float[Array, " n"]:
    """ℓ of each example."""
    # W is (classes, pixels), so that both products with the images run along their rows.
    logits = images @ params["weight"].T + params["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def weighted_loss(params: Params, hyper: Hyper, batch: tuple[Array, Array]) -> Float[Array, ""]:
    """Mean of λ_i ℓ_i."""
    return jnp.mean(hyper["weights"] * cross_entropies(params, *batch))


def validation_loss(params: Params, hyper: Hyper, batch: tuple[Array, Array]) -> Float[Array, ""]:
    """The mean of ℓ_i."""
    return jnp.mean(cross_entropies(params, *batch))


def accuracy(params: Params, hyper: Hyper, batch: tuple[Array, Array]) -> Float[Array, ""]:
    """The share of examples whose label is predicted."""
    images, labels = batch
    right = predicted(params, images) == labels
    return jnp.mean(right.astype(images.dtype))


def predicted(params: Params, images: Array) -> Int[Array, " n"]:
    """The class of the largest logit."""
    return jnp.argmax(images @ params["weight"].T + params["bias"], axis=1)


def softmax_regression(data: CleaningData) -> rfho.Descent:
    """Gradient descent from W = 0, b = 0."""
    classes, pixels = len(data.class_names), data.train.shape[1]
    init = {
        "weight": jnp.zeros((classes, pixels), data.train.dtype),
        "bias": jnp.zeros(classes, data.train.dtype),
    }
    return rfho.Descent(weighted_loss, gradient_descent, init)


def gradient_descent(hyper: Hyper) -> optax.GradientTransformation:
    """At the rate of ``hyper``."""
    return optax.sgd(hyper["rate"])


def train_on_both(
    data: CleaningData,
    shares: Float[np.ndarray, "models examples"],
    *,
    rate: float,
    horizon: int,
) -> tuple[Float[Array, " models"], Params]:
    """Test accuracy and parameters of one model per row of example weights.

    Args:
        data: the split.
        shares: weights of the training examples and, after them, of the validation examples.
        rate: the inner rate.
        horizon: inner steps T.
    """
    problem = rfho.Problem(
        softmax_regression(data),
        accuracy,
        train=(
            np.concatenate([data.train, data.valid]),
            np.concatenate([data.given, data.valid_labels]),
        ),
        valid=(data.test, data.test_labels),
        horizon=horizon,
    )
    dtype = data.train.dtype
    return _concluded(problem, jnp.asarray(shares, dtype), jnp.asarray(rate, dtype))


@eqx.filter_jit
def _concluded(problem: rfho.Problem, shares: Array, rate: Array) -> tuple[Array, Params]:
    method = rfho.hyper_gradients.ReverseHyperGradient()

    def one(weights: Array) -> tuple[Array, Params]:
        return method.conclude(problem, {"weights": weights, "rate": rate}, None)

    return jax.vmap(one)(shares)
