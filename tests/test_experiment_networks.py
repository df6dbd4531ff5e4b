"""Networks and data that several experiments share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfho.datasets import LabelledImages, TrainTest
from rfho.experiments.parts import image_data
from rfho.experiments.parts.convolution import (
    convolved,
    pooled,
    random_convolutions,
    random_picture_network,
    seen,
    squared_picture_weights,
)
from rfho.experiments.parts.image_data import load_image_split
from rfho.runs.settings import SettingsError


def test_patches_and_a_product_are_a_convolution():
    layers = random_convolutions((3, 4), seed=0)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8, 3)))
    filters = layers[0]["filters"].reshape(3, 3, 3, 4).astype(images.dtype)
    whole = jax.lax.conv_general_dilated(
        images, filters, (2, 2), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, variance = (f(whole, axis=(1, 2, 3), keepdims=True) for f in (jnp.mean, jnp.var))
    expected = jax.nn.relu((whole - mean) / jnp.sqrt(variance + 1e-5)).reshape(2, -1)
    np.testing.assert_allclose(convolved(layers, images), expected, atol=1e-6)


def test_the_largest_of_two_by_two_positions_is_taken_and_the_last_layer_is_not_rectified():
    layers = random_convolutions((1, 2), seed=0)
    image = np.random.default_rng(0).random((1, 5, 4, 1)).astype(np.float32)
    framed = np.pad(image[0, :, :, 0], 1)
    filters = np.asarray(layers[0]["filters"]).reshape(3, 3, 2)
    summed = np.empty((5, 4, 2))
    for row, column in np.ndindex(5, 4):
        summed[row, column] = np.einsum(
            "ij,ijc->c", framed[row : row + 3, column : column + 3], filters
        )
    unit = (summed - summed.mean()) / np.sqrt(summed.var() + 1e-5)
    expected = unit[:4].reshape(2, 2, 2, 2, 2).max(axis=(1, 3)).reshape(1, -1)
    assert expected.min() < 0
    np.testing.assert_allclose(pooled(layers, jnp.asarray(image)), expected, atol=1e-5)


@pytest.mark.parametrize("network", [convolved, pooled])
def test_no_image_sees_another(network):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 7, 1)))
    layers = random_convolutions((1, 4, 8), seed=0)
    layers = jax.tree.map(lambda leaf: leaf.astype(images.dtype), layers)
    alone = network(layers, images[1:2])
    np.testing.assert_allclose(network(layers, images)[1:2], alone, rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (7, 5, 3)])
@pytest.mark.parametrize("channels", [(), (4,), (4, 6)])
def test_the_dense_layers_fit_what_convolutions_leave(shape, channels):
    network = random_picture_network(shape, channels, (5, 10), seed=0)
    rows = jnp.ones((2, int(np.prod(shape))), jnp.float32)
    dense, (features, labels) = seen(network, (rows, jnp.zeros(2, int)), shape)
    assert features.shape == (2, dense[0]["weight"].shape[0])
    assert labels.shape == (2,)


def test_the_penalty_leaves_scales_and_shifts_alone():
    network = random_picture_network((4, 4), (2,), (3,), seed=0)
    every = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(network))
    scales = float(jnp.sum(network.convolutions[0]["scale"] ** 2))
    assert scales == 2
    assert float(squared_picture_weights(network)) == pytest.approx(every - scales, rel=1e-6)


def test_without_an_official_test_part_it_is_what_is_left():
    split = load_image_split("digits", (100, 50), seed=0)
    sizes = [len(part[1]) for part in (split.train, split.valid, split.test)]
    assert sizes == [100, 50, 1797 - 150]
    rows = np.concatenate([part[0] for part in (split.train, split.valid, split.test)])
    assert len(np.unique(rows, axis=0)) == 1797


def test_an_official_test_part_is_taken_whole(monkeypatch):
    def images(count, shade):
        pixels = np.full((count, 2, 2), shade, np.float32)
        return LabelledImages(pixels, np.arange(count, dtype=np.int32) % 2, ("a", "b"))

    official = TrainTest(images(10, 0.0), images(6, 1.0))
    monkeypatch.setattr(image_data, "load_mnist", lambda: official)
    split = load_image_split("mnist", (4, 2), seed=0)
    assert split.test[0].shape == (6, 4)
    assert np.all(split.test[0] == 1)
    assert not np.any(split.train[0])
    with pytest.raises(SettingsError, match=r"train, valid = \(8, 4\): mnist has too few"):
        load_image_split("mnist", (8, 4), seed=0)
