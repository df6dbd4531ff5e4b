"""No constraint: the projection is the identity."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rfho.domains.base import AbstractDomain


class Reals(AbstractDomain):
    """All real arrays, for a hyperparameter without constraint.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.Reals().project(jnp.array(-3.0)).item()
        -3.0
    """

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The identity."""
        return x

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry of ``x`` is finite."""
        return jnp.all(jnp.isfinite(x))
