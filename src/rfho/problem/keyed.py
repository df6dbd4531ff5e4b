"""Batches with a random key of their own, the same on the way back."""

from typing import Any

import equinox as eqx
import jax
from jax import Array

from rfho._programs import trees as tree
from rfho.typing import Batch, PyTree, Step

_OF_STEPS = 0x5EED
"""Folded in first, so that a key that makes the batches as well gives other numbers here."""


class Keyed(eqx.Module):
    """Batches of ``data`` with a fresh random key each: dropout, noise, augmentation.

    A step must be the same when the way back takes it again. So its randomness is a function of t, and
    comes to the loss with the batch: ``batch, key = batch``.

    Args:
        data: a pytree of arrays (the same full batch at every step), a `Stream`, any pure function of
            the step t = 0, 1, …, or None.
        key: a JAX random key, or an integer of any kind as its seed.

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> train = rfho.Keyed(rfho.Stream(jnp.arange(10.0), size=5, key=0), key=1)
        >>> def loss(w, hyper, batch):
        ...     x, key = batch
        ...     return jnp.mean(jax.random.bernoulli(key, 0.8, x.shape) * (x - w) ** 2)
        >>> float(loss(0.0, None, train(3))) == float(loss(0.0, None, train(3)))
        True
    """

    data: Any
    key: Array

    def __init__(self, data: PyTree, key: Any) -> None:
        self.data = data if callable(data) else tree.as_arrays(data, "data")
        self.key = tree.as_key(key, "Keyed")

    def __call__(self, t: Step) -> tuple[Batch, Array]:
        """The batch and the key of step t."""
        batch = self.data(t) if callable(self.data) else self.data
        return batch, jax.random.fold_in(jax.random.fold_in(self.key, _OF_STEPS), t)
