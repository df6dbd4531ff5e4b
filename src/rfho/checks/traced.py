"""Checks look at numbers: they cannot be part of a program that JAX is tracing."""

import jax.numpy as jnp

from rfho._programs.tracing import any_traced
from rfho.typing import PyTree


def refuse_traced(values: PyTree, of: str) -> None:
    """Refuses to go on under `jax.jit`, `jax.vmap` or `jax.grad`.

    Raises:
        TypeError: a leaf of ``values``, or any array made here, is traced.
    """
    if any_traced((values, jnp.zeros(()))):
        raise TypeError(
            f"rfho.{of} looks at numbers, which are not known inside jax.jit, jax.vmap or jax.grad: call it "
            "outside, once for each point; rfho.hyper_gradient works inside"
        )
