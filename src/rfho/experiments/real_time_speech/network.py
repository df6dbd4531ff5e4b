"""The network of speech frames: layers of rectified linear units under two heads, one for each target."""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from rfho.experiments.parts.network import Network
from rfho.experiments.real_time_speech.data import Frames


def two_heads(network: Network, classes: int) -> Network:
    """The last layer cut in two: ``classes`` outputs for the primary target, then the others."""
    *hidden, last = network
    halves = (slice(None, classes), slice(classes, None))
    heads = [{name: leaf[..., half] for name, leaf in last.items()} for half in halves]
    return (*hidden, *heads)


def logits(
    network: Network, windows: Float[Array, "n features"]
) -> tuple[Float[Array, "n classes"], Float[Array, "n kinds"]]:
    """Of the primary target, and of the secondary one."""
    *hidden, primary, secondary = network
    for layer in hidden:
        windows = jax.nn.relu(windows @ layer["weight"] + layer["bias"])
    first = windows @ primary["weight"] + primary["bias"]
    return first, windows @ secondary["weight"] + secondary["bias"]


def cross_entropy(outputs: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """The mean over frames."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))


@jax.jit
def accuracy(network: Network, frames: Frames) -> Float[Array, ""]:
    """The percentage of frames whose primary label is named rightly."""
    named = jnp.argmax(logits(network, frames.windows)[0], axis=1)
    return 100 * jnp.mean((named == frames.primary).astype(jnp.float32))
