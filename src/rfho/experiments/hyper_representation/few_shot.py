r"""Few-shot episodes, and the network that represents their images.

An episode has a few classes that are new to the learner, some drawings of each to learn from (its
support) and others to be judged by (its queries). Classes of meta-training and of meta-testing are
different ones.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from rfho.datasets import load_omniglot
from rfho.experiments.parts.convolution import Convolutions, pooled
from rfho.runs.settings import one_of

DRAWING_SETS = one_of("invented", "omniglot")
"""The check of a setting that names the drawings."""

Classes = UInt8[np.ndarray, "classes drawings height width"]
"""As many drawings of each class; 255 is ink."""

Episodes = UInt8[Array | np.ndarray, "episodes ways drawings height width"]
"""The first drawings of each class are its support, the others its queries."""


class Pools(NamedTuple):
    """The classes of meta-training, and others of meta-testing."""

    training: Classes
    testing: Classes

    def have(self, ways: int, drawings: int) -> bool:
        """Whether both have so many classes, with so many drawings each."""
        return all(len(pool) >= ways and pool.shape[1] >= drawings for pool in self)


class Features(NamedTuple):
    """Representations of the images of some episodes, class after class: to learn from, and to judge by."""

    support: Float[Array, "episodes support width"]
    query: Float[Array, "episodes query width"]


def load_pools(name: str, *, seed: int) -> Pools:
    """Drawings by class.

    Of Omniglot the 964 characters of the background alphabets, each also rotated by 90, 180 and 270
    degrees (3856 classes), and the 659 of the evaluation alphabets. Of the invented characters 300
    for meta-training and 120 others.

    Raises:
        DataNotFoundError, DataFormatError: files are missing or damaged.
    """
    if name == "invented":
        return Pools(*np.split(invent_characters(420, seed=seed), [300]))
    omniglot = load_omniglot()
    ink = (255 * omniglot.images).astype(np.uint8)
    background = ink[~omniglot.evaluation]
    turned = [np.rot90(background, quarters, axes=(2, 3)) for quarters in range(4)]
    return Pools(np.concatenate(turned), ink[omniglot.evaluation])


def invent_characters(count: int, *, seed: int) -> Classes:
    """Characters of two strokes each, drawn 20 times by an unsteady hand, 14 pixels wide and high.

    A stroke is a quadratic Bézier curve. Its three points are the character's own; a drawing moves
    each of them a little, and turns, stretches and shifts the whole.
    """
    generator = np.random.default_rng(seed)
    points = generator.uniform(-1.2, 1.2, (count, 1, 2, 3, 2))
    points = points + generator.normal(0, 0.12, (count, 20, 2, 3, 2))
    unsteady = np.eye(2) + generator.normal(0, 0.15, (count, 20, 1, 2, 2))
    points = points @ unsteady + generator.normal(0, 0.15, (count, 20, 1, 1, 2))
    along = np.linspace(0, 1, 15)
    weights = np.stack([(1 - along) ** 2, 2 * along * (1 - along), along**2], axis=1)
    trace = (weights @ points).reshape(count * 20, -1, 2).astype(np.float32)
    pixels = np.linspace(-1.5, 1.5, 14, dtype=np.float32)
    # A pixel is as dark as the nearest piece of a stroke is close; e^-x separates the two axes.
    near = np.exp(-(((trace[..., None] - pixels) / 0.16) ** 2))
    ink = np.stack([(each[:, 0, :, None] * each[:, 1, None, :]).max(axis=0) for each in near])
    return (255 * ink).astype(np.uint8).reshape(count, 20, 14, 14)


def draw_episodes(
    pool: Classes, generator: np.random.Generator, *, count: int, ways: int, drawings: int
) -> UInt8[np.ndarray, "episodes ways drawn height width"]:
    """Random classes of the pool, and random drawings of each; neither comes twice in an episode."""
    classes = [generator.choice(len(pool), ways, replace=False) for _ in range(count)]
    every = np.broadcast_to(np.arange(pool.shape[1]), (count, ways, pool.shape[1]))
    drawn = generator.permuted(every, axis=2)[:, :, :drawings]
    return pool[np.stack(classes)[:, :, None], drawn]


def represent_episodes(network: Convolutions, episodes: Episodes, shots: int) -> Features:
    """Every image of the episodes once; the first ``shots`` drawings of a class are its support."""
    images = episodes.reshape(-1, *episodes.shape[3:])
    pixels = jnp.asarray(images, network[0]["filters"].dtype)[..., None] / 255
    rows = pooled(network, pixels).reshape(*episodes.shape[:3], -1)
    parts = rows[:, :, :shots], rows[:, :, shots:]
    return Features(*(part.reshape(len(episodes), -1, rows.shape[-1]) for part in parts))


@eqx.filter_jit
def nearest(episodes: Episodes, shots: int) -> Float[Array, " episodes"]:
    """Of nearest neighbours on pixels in each episode, in percent."""
    count, ways = episodes.shape[:2]
    ink = episodes.reshape(*episodes.shape[:3], -1).astype(jnp.float32) / 255
    support = ink[:, :, :shots].reshape(count, ways * shots, -1)
    query = ink[:, :, shots:].reshape(count, -1, ink.shape[-1])
    # |q - s|^2 without |q|^2, which is the same for every s.
    far = jnp.sum(support**2, axis=2)[:, None] - 2 * query @ jnp.swapaxes(support, 1, 2)
    guess = jnp.argmin(far, axis=2) // shots
    right = guess == labels(query.shape[1], ways)
    return 100 * jnp.mean(right.astype(ink.dtype), axis=1)


def labels(count: int, ways: int) -> Array:
    """Of images that are sorted by class."""
    return jnp.repeat(jnp.arange(ways), count // ways)
