"""The non-negative orthant {x : x >= 0}, as for penalties."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from optax import projections

from rfho.domains.base import AbstractDomain


class NonNegative(AbstractDomain):
    """Entries at least zero: P(x) = max(x, 0).

    For hyperparameters where zero is meaningful, such as a penalty that may switch
    itself off. Where zero makes no sense and the right value may lie orders of
    magnitude away, `Positive` moves on the logarithmic scale.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.NonNegative().project(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Replaces negative entries by zero."""
        return projections.projection_non_negative(x)

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry is at least ``-tol``."""
        return jnp.all(x >= -tol)
