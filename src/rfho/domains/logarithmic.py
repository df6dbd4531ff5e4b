"""What domains on the logarithmic scale share: u = log x, and what has no logarithm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfho._programs.trees import is_small
from rfho.domains.base import AbstractDomain


class AbstractLogarithmic(AbstractDomain):
    """A set of positive numbers, moved by the outer optimiser in log x."""

    def chart(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The natural logarithm."""
        return jnp.log(x)

    def unchart(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The exponential."""
        return jnp.exp(u)


def without_logarithm(x: Any, domain: str, remedy: str) -> str | None:
    """The objection to an entry of zero or less.

    Args:
        x: one leaf of ``hyper``, with known, finite values.
        domain: which asks for positive ones.
        remedy: what to do instead.
    """
    smallest = float(np.min(np.asarray(x), initial=np.inf) if is_small(x) else _smallest(x))
    if smallest > 0:
        return None
    return f"has the entry {smallest}, but {domain} moves in log x, which needs x > 0: {remedy}"


@jax.jit
def _smallest(x: Array) -> Array:
    """Found where the numbers lie, which may be several processes."""
    return jnp.min(x, initial=jnp.inf)
