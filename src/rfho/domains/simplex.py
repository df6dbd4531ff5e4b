"""The simplex {x : x >= 0, Σx = total}, as for mixtures.

P(x)_i = max(x_i - μ, 0) with the μ that makes the sum right. The projection does
not change when a constant is added to every entry, so the largest entry is moved to zero
first: the entries that stay positive are then small and exact, however large x is.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float
from optax import projections

from rfho.domains.base import AbstractDomain, known, not_finite, parameter


class Simplex(AbstractDomain):
    """Non-negative entries, over all axes of the leaf together, that sum to ``total``.

    Time O(n log n) for n entries, by sorting.

    Attributes:
        total: positive scalar, by default 1.

    Raises:
        ValueError: when built, if ``total`` is no finite positive scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.Simplex().project(jnp.array([1.0, 1.0, -5.0])).tolist()
        [0.5, 0.5, 0.0]
    """

    total: float | Array = eqx.field(converter=parameter, default=1.0)

    def __check_init__(self) -> None:
        total = known(self.total)
        if total is not None and not (total.ndim == 0 and 0 < total < np.inf):
            raise ValueError(
                f"Simplex got total={self.total}, but expected a finite positive scalar: "
                "non-negative entries cannot sum to anything else"
            )

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest non-negative entries of the right sum."""
        shifted = x - lax.stop_gradient(jnp.max(x))
        nearest = projections.projection_simplex(shifted, jnp.asarray(self.total, x.dtype))
        return nearest.astype(x.dtype)  # Optax computes partly in the default precision.

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether no entry is below ``-tol`` and the sum is right within ``tol``."""
        total = jnp.asarray(self.total, x.dtype)
        return jnp.all(x >= -tol) & (jnp.abs(jnp.sum(x) - total) <= tol * jnp.maximum(1, total))

    def objection(self, x: Any) -> str | None:
        """Objects to a scalar and to an array without entries."""
        if objection := not_finite(x):
            return objection
        if np.ndim(x) == 0 or np.size(x) == 0:
            return (
                f"has shape {np.shape(x)}, but Simplex(total={self.total}) shares its total "
                "among the entries of an array: give an array with one entry for each share"
            )
        return None
