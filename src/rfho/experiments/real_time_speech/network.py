r"""The network of speech frames: rectified linear units, and two heads.

.. math:: h_0 = x, \quad h_l = \max(0,\ W_l^\top h_{l-1} + b_l), \quad
          z = V^\top h_L + c, \quad z' = V'^\top h_L + c'

z names the primary target, z' the secondary one, which is known in training only (arXiv 1703.01785,
section 5.3). The weight ρ of the secondary loss is a hyperparameter; the objective knows of the
primary target alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from rfho.experiments.parts.network import Network
from rfho.experiments.real_time_speech.data import Frames

Hyper = dict[str, Array]
"""``rate``, ``momentum`` and ``rho``, a number each."""


def hyper_of(rate: float, momentum: float, rho: float) -> Hyper:
    """λ = (η, μ, ρ)."""
    named = {"rate": rate, "momentum": momentum, "rho": rho}
    return {name: jnp.float32(value) for name, value in named.items()}


def rate_of(hyper: Hyper, t: Any) -> Array:
    """η, the same at every step."""
    return hyper["rate"]


def momentum_of(hyper: Hyper, t: Any) -> Array:
    """μ, the same at every step."""
    return hyper["momentum"]


def two_heads(network: Network, classes: int) -> Network:
    """The last layer cut in two: ``classes`` outputs for the primary target, then the others."""
    *hidden, last = network
    halves = (slice(None, classes), slice(classes, None))
    heads = [{name: leaf[..., half] for name, leaf in last.items()} for half in halves]
    return (*hidden, *heads)


def logits(
    network: Network, windows: Float[Array, "n features"]
) -> tuple[Float[Array, "n classes"], Float[Array, "n kinds"]]:
    """z and z'."""
    *hidden, primary, secondary = network
    for layer in hidden:
        windows = jax.nn.relu(windows @ layer["weight"] + layer["bias"])
    first = windows @ primary["weight"] + primary["bias"]
    return first, windows @ secondary["weight"] + secondary["bias"]


def loss(network: Network, hyper: Hyper, batch: Frames) -> Float[Array, ""]:
    """L = primary + ρ secondary."""
    primary, secondary = logits(network, batch.windows)
    of_secondary = _cross_entropy(secondary, batch.secondary)
    return _cross_entropy(primary, batch.primary) + hyper["rho"] * of_secondary


def objective(network: Network, hyper: Hyper, batch: Frames) -> Float[Array, ""]:
    """E: the primary loss alone, on validation frames."""
    return _cross_entropy(logits(network, batch.windows)[0], batch.primary)


@jax.jit
def accuracy(network: Network, frames: Frames) -> Float[Array, ""]:
    """The percentage of frames whose primary label is named rightly."""
    named = jnp.argmax(logits(network, frames.windows)[0], axis=1)
    return 100 * jnp.mean((named == frames.primary).astype(jnp.float32))


def _cross_entropy(outputs: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))
