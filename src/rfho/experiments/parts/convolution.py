r"""Small convolutional networks whose layers of 3 x 3 filters halve height and width.

.. math:: h_l = \max(0,\ s_l \odot \mathrm{norm}(W_l \ast h_{l-1}) + b_l),

where norm takes mean and variance of an image over all its positions and channels: no image's
representation depends on another image. `convolved` leaves out every second position, which costs
least; `pooled` takes the largest of two by two, which notices less where a stroke lies exactly.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from rfho.experiments.parts.network import Examples, Network, random_network, squared_weights

Convolutions = tuple[dict[str, Array], ...]
"""Layer by layer: ``filters`` (9 channels before, channels), ``scale`` and ``shift`` (channels,)."""


def random_convolutions(channels: Sequence[int], *, seed: int) -> Convolutions:
    """Gaussian filters of variance 1 / inputs, scales one, shifts zero; channels of the images come first.

    Example:
        >>> [layer["filters"].shape for layer in random_convolutions((1, 8, 16), seed=0)]
        [(9, 8), (72, 16)]
    """
    generator = np.random.default_rng(seed)

    def layer(before: int, channels: int) -> dict[str, Array]:
        filters = generator.normal(0, (9 * before) ** -0.5, (9 * before, channels))
        return {
            "filters": jnp.asarray(filters, jnp.float32),
            "scale": jnp.ones(channels, jnp.float32),
            "shift": jnp.zeros(channels, jnp.float32),
        }

    return tuple(layer(*sizes) for sizes in itertools.pairwise(channels))


def convolved(
    layers: Convolutions, images: Float[Array, "n height width channels"]
) -> Float[Array, "n features"]:
    """h, one row per image: what is left of height, width and channels after the last layer.

    By patches and matrix products: within a scan, XLA's convolution is some twenty times slower on a CPU.
    """
    hidden = images
    for layer in layers:
        hidden = jax.nn.relu(_normalised(_patches(hidden) @ layer["filters"], layer))
    return hidden.reshape(len(hidden), -1)


def pooled(
    layers: Convolutions, images: Float[Array, "n height width channels"]
) -> Float[Array, "n features"]:
    """The same at full resolution, then the largest of two by two positions; the last layer is not rectified.

    For images that are not negative.
    """
    hidden = images
    for layer in layers:
        channels, rectified = hidden.shape[3], jax.nn.relu(hidden)
        filters = layer["filters"].reshape(3, 3, channels, -1)
        axes = ("NHWC", "HWIO", "NHWC")
        summed = jax.lax.conv_general_dilated(
            rectified, filters, (1, 1), "SAME", dimension_numbers=axes
        )
        hidden = _largest(_normalised(summed, layer))
    return hidden.reshape(len(hidden), -1)


class PictureNetwork(NamedTuple):
    """Convolutions, which may be none, and fully connected layers on what they leave."""

    convolutions: Convolutions
    dense: Network


def random_picture_network(
    shape: tuple[int, ...], channels: Sequence[int], widths: Sequence[int], *, seed: int
) -> PictureNetwork:
    """As `random_convolutions` and `random_network` draw them, for pictures of a shape; classes are last.

    Example:
        >>> network = random_picture_network((8, 8), (4,), (10,), seed=0)
        >>> network.dense[0]["weight"].shape
        (64, 10)
    """
    height, width, colours = (*shape, 1)[:3]
    left = [-(-side // 2 ** len(channels)) for side in (height, width)]
    features = math.prod(left) * [colours, *channels][-1]
    return PictureNetwork(
        random_convolutions((colours, *channels), seed=seed),
        random_network((features, *widths), seed=seed),
    )


def seen(
    network: PictureNetwork, examples: Examples, shape: tuple[int, ...]
) -> tuple[Network, Examples]:
    """The fully connected layers, and what they see of pictures that come as rows of pixels."""
    rows, labels = examples
    pictures = rows.reshape(len(rows), *(*shape, 1)[:3])
    return network.dense, (convolved(network.convolutions, pictures), labels)


def squared_picture_weights(network: PictureNetwork) -> Float[Array, ""]:
    """The sum of all squared weights, without scales, shifts and biases."""
    filters = [jnp.sum(layer["filters"] ** 2) for layer in network.convolutions]
    return sum(filters, squared_weights(network.dense))


def _patches(hidden: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c9"]:
    """The 3 x 3 surroundings of every second position: with them a convolution is a matrix product."""
    height, width = (2 * ((side + 1) // 2) for side in hidden.shape[1:3])
    padded = jnp.pad(hidden, ((0, 0), (1, 2), (1, 2), (0, 0)))
    places = itertools.product(range(3), range(3))
    parts = [
        padded[:, row : row + height : 2, column : column + width : 2] for row, column in places
    ]
    return jnp.concatenate(parts, axis=3)


def _largest(hidden: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """The largest of two by two positions; an odd row or column at the end is left out."""
    height, width = (2 * (side // 2) for side in hidden.shape[1:3])
    hidden = hidden[:, :height, :width]
    hidden = jnp.maximum(hidden[:, ::2], hidden[:, 1::2])
    return jnp.maximum(hidden[:, :, ::2], hidden[:, :, 1::2])


def _normalised(
    hidden: Float[Array, "n h w c"], layer: dict[str, Array]
) -> Float[Array, "n h w c"]:
    """Of mean zero and variance one in each image, then scaled and shifted."""
    centred = hidden - jnp.mean(hidden, axis=(1, 2, 3), keepdims=True)
    variance = jnp.mean(centred**2, axis=(1, 2, 3), keepdims=True)
    unit = centred * jax.lax.rsqrt(variance + 1e-5)
    return layer["scale"] * unit + layer["shift"]
