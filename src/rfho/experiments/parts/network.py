"""The network of the experiments: fully connected layers, a smooth non-linearity between them.

.. math:: h_0 = x, \\quad h_l = \\tanh(W_l^\\top h_{l-1} + b_l), \\quad
          z = W_L^\\top h_{L-1} + b_L

tanh rather than ReLU, so that a hypergradient is the derivative of a smooth function. One layer is
softmax regression.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

Network = tuple[dict[str, Array], ...]
"""Layer by layer: ``weight`` of the shape (inputs, outputs) and ``bias`` of the shape (outputs,)."""

Examples = tuple[Array, Array]
"""Inputs ``(n, features)`` and labels ``(n,)``."""


def random_network(widths: Sequence[int], *, seed: int) -> Network:
    """Gaussian weights of variance 1 / inputs, biases zero.

    Example:
        >>> [layer["weight"].shape for layer in random_network((64, 16, 10), seed=0)]
        [(64, 16), (16, 10)]
    """
    generator = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int) -> dict[str, Array]:
        weight = generator.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        return {"weight": jnp.asarray(weight), "bias": jnp.zeros(outputs, jnp.float32)}

    return tuple(layer(*sizes) for sizes in itertools.pairwise(widths))


def blank_network(inputs: int, outputs: int) -> Network:
    """Softmax regression that starts at zero."""
    weight, bias = jnp.zeros((inputs, outputs), jnp.float32), jnp.zeros(outputs, jnp.float32)
    return ({"weight": weight, "bias": bias},)


def logits(network: Network, inputs: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
    """z, one row per input."""
    *hidden, last = network
    for layer in hidden:
        inputs = jnp.tanh(inputs @ layer["weight"] + layer["bias"])
    return inputs @ last["weight"] + last["bias"]


def cross_entropy(network: Network, hyper: Any, batch: Examples) -> Float[Array, ""]:
    """The mean over examples, as loss or objective that does not depend on λ itself."""
    inputs, labels = batch
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(network, inputs), labels)
    return jnp.mean(losses)


def accuracy(network: Network, examples: Examples) -> Float[Array, ""]:
    """The share of examples whose largest logit is that of their label."""
    inputs, labels = examples
    predicted: Int[Array, " n"] = jnp.argmax(logits(network, inputs), axis=1)
    return jnp.mean((predicted == labels).astype(inputs.dtype))


def squared_weights(network: Network) -> Float[Array, ""]:
    """The sum of all squared weights, without the biases."""
    return jnp.sum(jnp.stack([jnp.sum(layer["weight"] ** 2) for layer in network]))
