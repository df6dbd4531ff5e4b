"""Models trained on a few images each: how good they are, and at which rate they learn best."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

import rfho
from rfho.experiments.parts.image_data import ImageSplit, Part
from rfho.experiments.parts.network import Examples, accuracy

RATES = tuple(np.geomspace(0.01, 30, 12).tolist())
"""The rates among which the real images choose theirs, by the validation loss."""


class Judged(NamedTuple):
    """Models that were trained on a few images each.

    Attributes:
        loss: on the validation set, one per model.
        accuracy: on the test set, in percent.
    """

    loss: np.ndarray
    accuracy: np.ndarray


def judge(problem: rfho.Problem, test: Part, images: np.ndarray, rate: float) -> Judged:
    """Trains one model on each set of images."""
    examples = jnp.asarray(test[0]), jnp.asarray(test[1])
    loss, right = _trained(problem, examples, jnp.asarray(images), jnp.float32(rate))
    return Judged(np.asarray(loss), 100 * np.asarray(right))


def best_rate(problem: rfho.Problem, data: ImageSplit, images: np.ndarray) -> float:
    """The rate of lowest validation loss, on the mean over the sets."""
    losses = [judge(problem, data.test, images, rate).loss for rate in RATES]
    means = [float(np.mean(loss)) if np.all(np.isfinite(loss)) else np.inf for loss in losses]
    return RATES[int(np.argmin(means))]


@eqx.filter_jit
def _trained(
    problem: rfho.Problem, test: Examples, images: Array, rate: Array
) -> tuple[Float[Array, " sets"], Float[Array, " sets"]]:
    method = rfho.hyper_gradients.ReverseHyperGradient()

    def one(images: Array) -> tuple[Array, Array]:
        value, network = method.conclude(problem, {"images": images, "rate": rate}, None)
        return value, accuracy(network, test)

    return jax.vmap(one)(images)
