r"""The network of speech frames: rectified linear units, and two outputs side by side.

.. math:: h_0 = x, \quad h_l = \max(0,\ W_l^\top h_{l-1} + b_l), \quad
          (z, z') = W_L^\top h_{L-1} + b_L

z names the digit, z' the secondary target, which is known in training only (arXiv 1703.01785,
section 5.3). The weight ρ of the secondary loss is a hyperparameter; the objective knows of the
digit alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from rfho.experiments.frame_data import DIGITS, Frames
from rfho.experiments.network import Network

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


def logits(network: Network, windows: Float[Array, "n features"]) -> Float[Array, "n outputs"]:
    """Both outputs side by side: digits first, then secondary labels."""
    *hidden, last = network
    for layer in hidden:
        windows = jax.nn.relu(windows @ layer["weight"] + layer["bias"])
    return windows @ last["weight"] + last["bias"]


def loss(network: Network, hyper: Hyper, batch: Frames) -> Float[Array, ""]:
    """L = primary + ρ secondary."""
    outputs = logits(network, batch.windows)
    primary = _cross_entropy(outputs[:, :DIGITS], batch.digit)
    return primary + hyper["rho"] * _cross_entropy(outputs[:, DIGITS:], batch.secondary)


def objective(network: Network, hyper: Hyper, batch: Frames) -> Float[Array, ""]:
    """E: the primary loss alone, on validation frames."""
    return _cross_entropy(logits(network, batch.windows)[:, :DIGITS], batch.digit)


@jax.jit
def accuracy(network: Network, frames: Frames) -> Float[Array, ""]:
    """The percentage of frames whose digit is named rightly."""
    named = jnp.argmax(logits(network, frames.windows)[:, :DIGITS], axis=1)
    return 100 * jnp.mean((named == frames.digit).astype(jnp.float32))


def _cross_entropy(outputs: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))
