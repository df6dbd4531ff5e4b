"""Features of pictures, learned from the pictures alone: no label is seen.

Coates, Ng and Lee (AISTATS 2011): small patches, contrast normalised and whitened, are clustered by
k-means; a place in a picture is described by how much nearer than average each centre is,

    f_k = max(0, mean_j d_j - d_k),    d_k = ‖patch - centre_k‖,

and a picture by the sums of f over its four quarters.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy.lib.stride_tricks import sliding_window_view
from scipy.cluster.vq import kmeans2

from rfho.experiments.parts.image_data import ImageSplit, random_parts
from rfho.files import Array, read_arrays
from rfho.runs.settings import SettingsError

Pictures = Float32[np.ndarray, "n height width channels"]

_SIDE, _CHUNK, _PATCHES = 6, 50, 20_000
_NUMBERS, _LARGEST = (np.integer, np.floating), 10**30


class PatchFeatures(NamedTuple):
    """The mean of all patches, what makes their entries uncorrelated, and centres among them."""

    mean: Float32[np.ndarray, " entries"]
    whitening: Float32[np.ndarray, "entries entries"]
    centres: Float32[np.ndarray, "words entries"]

    def __call__(self, pictures: Pictures) -> Float32[np.ndarray, "n features"]:
        """Four numbers for each centre."""
        chunks = [pictures[i : i + _CHUNK] for i in range(0, len(pictures), _CHUNK)]
        return np.concatenate([self._described(chunk) for chunk in chunks])

    def _described(self, pictures: Pictures) -> Float32[np.ndarray, "n features"]:
        patches = (_patches(pictures) - self.mean) @ self.whitening
        squares = np.sum(patches**2, -1, keepdims=True) + np.sum(self.centres**2, -1)
        distance = np.sqrt(np.maximum(squares - 2 * patches @ self.centres.T, 0))
        nearer = np.maximum(distance.mean(-1, keepdims=True) - distance, 0)
        rows, columns = nearer.shape[1] // 2, nearer.shape[2] // 2
        halves = np.stack([nearer[:, :rows].sum(1), nearer[:, rows:].sum(1)], axis=1)
        quarters = [halves[:, :, :columns].sum(2), halves[:, :, columns:].sum(2)]
        return np.stack(quarters, axis=2).reshape(len(pictures), -1).astype(np.float32)


def learn_patch_features(pictures: Pictures, *, words: int, seed: int) -> PatchFeatures:
    """Centres of the patches of ``pictures``, found by k-means."""
    patches = _patches(pictures).reshape(-1, _SIDE * _SIDE * pictures.shape[-1])
    drawn = np.random.default_rng(seed).permutation(len(patches))[:_PATCHES]
    mean = patches[drawn].mean(axis=0)
    centred = patches[drawn] - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    whitening = ((axes / np.sqrt(variances + 0.1)) @ axes.T).astype(np.float32)
    white = centred @ whitening
    centres, _ = kmeans2(white, white[:words], iter=20, minit="matrix")
    return PatchFeatures(mean, whitening, np.asarray(centres, np.float32))


def described(split: ImageSplit, *, words: int, seed: int) -> ImageSplit:
    """The split with features in place of pictures, learned from its training and validation pictures."""
    known = np.concatenate([split.train[0], split.valid[0]]).reshape(-1, *split.shape)
    features = learn_patch_features(known, words=words, seed=seed)
    return _standardised(split.seen_as(lambda rows: features(rows.reshape(-1, *split.shape))))


def load_feature_split(path: str, sizes: tuple[int, int, int], *, seed: int) -> ImageSplit:
    """Three random parts of an npz file with ``features``, one row per example, and ``labels``.

    Raises:
        DataFormatError: the file is missing or is not that.
        SettingsError: it has other than ten classes, or too few examples.
    """
    features, labels = read_arrays(
        Path(path),
        Array("features", _NUMBERS, ("examples", "features"), lowest=-_LARGEST, below=_LARGEST),
        Array("labels", shape=("examples",)),
    )
    names, labels = np.unique(labels, return_inverse=True)
    if len(names) != 10:
        raise SettingsError(
            f"features = {path} has {len(names)} classes, but ten tasks are learned"
        )
    rows, labels = features.astype(np.float32), labels.astype(np.int32)
    train, valid, test = (
        (rows[chosen], labels[chosen]) for chosen in random_parts(labels, sizes, path, seed=seed)
    )
    split = ImageSplit(train, valid, test, rows.shape[1:], tuple(map(str, names)))
    return _standardised(split)


def _standardised(split: ImageSplit) -> ImageSplit:
    """Each feature with mean 0 and deviation 1 or less over training and validation part."""
    known = np.concatenate([split.train[0], split.valid[0]])
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    # A feature that hardly varies here may be large elsewhere.
    deviation = np.maximum(deviation, 0.1 * deviation.mean())
    return split.seen_as(lambda rows: (rows - mean) / deviation)


def _patches(pictures: Pictures) -> Float32[np.ndarray, "n rows columns entries"]:
    """Patches at all places, each of mean 0 and about unit contrast."""
    windows = sliding_window_view(pictures, (_SIDE, _SIDE), axis=(1, 2))
    flat = windows.reshape(*windows.shape[:3], -1).astype(np.float32)
    flat = flat - flat.mean(-1, keepdims=True)
    return flat / np.sqrt(flat.var(-1, keepdims=True) + 10 / 255**2)
