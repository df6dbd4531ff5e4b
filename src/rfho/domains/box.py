"""Bounds on each entry, {x : lower <= x <= upper}, and the unit interval among them."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from optax import projections

from rfho.domains.base import AbstractDomain, known, not_finite, parameter


class Box(AbstractDomain):
    """Entries between two bounds: P(x) = min(max(x, lower), upper).

    Attributes:
        lower: scalar, or an array that broadcasts to the leaf; may be minus infinity.
        upper: likewise; may be infinity. Equal bounds pin an entry.

    Raises:
        ValueError: when built, if some lower bound exceeds its upper bound, if a bound is
            NaN, or if the set has no finite point.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.Box(-1.0, jnp.array([1.0, 2.0])).project(jnp.array([5.0, 5.0])).tolist()
        [1.0, 2.0]
    """

    lower: float | Array = eqx.field(converter=parameter)
    upper: float | Array = eqx.field(converter=parameter)

    def __check_init__(self) -> None:
        try:
            np.broadcast_shapes(np.shape(self.lower), np.shape(self.upper))
        except ValueError:
            raise ValueError(
                f"Box got lower of shape {np.shape(self.lower)} and upper of shape "
                f"{np.shape(self.upper)}, which do not broadcast: give scalars or equal shapes"
            ) from None
        lower, upper = known(self.lower), known(self.upper)
        if lower is None or upper is None:
            return
        if not np.all((lower <= upper) & (lower < np.inf) & (upper > -np.inf)):
            raise ValueError(
                f"Box(lower={self.lower}, upper={self.upper}) is empty: expected lower <= upper "
                "in every entry, without NaN, lower < inf and upper > -inf"
            )

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Clips each entry. Raises ValueError if the bounds do not broadcast to ``x``."""
        return projections.projection_box(x, *self._bounds(x))

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry is between its bounds, within ``tol``."""
        lower, upper = self._bounds(x)
        return jnp.all((x >= lower - tol) & (x <= upper + tol))

    def objection(self, x: Any) -> str | None:
        """Objects to a shape that the bounds do not broadcast to."""
        return not_finite(x) or self._misshapen(np.shape(x))

    def _bounds(self, x: Array) -> tuple[Array, Array]:
        if objection := self._misshapen(x.shape):
            raise ValueError(f"the leaf {objection}")
        return (
            jnp.broadcast_to(jnp.asarray(self.lower, x.dtype), x.shape),
            jnp.broadcast_to(jnp.asarray(self.upper, x.dtype), x.shape),
        )

    def _misshapen(self, shape: tuple[int, ...]) -> str | None:
        lower, upper = np.shape(self.lower), np.shape(self.upper)
        try:
            fits = np.broadcast_shapes(lower, upper, shape) == shape
        except ValueError:
            fits = False
        if fits:
            return None
        return (
            f"has shape {shape}, but Box has lower of shape {lower} and upper of shape {upper}, "
            "which do not broadcast to it: give scalar bounds or bounds of the leaf's shape"
        )


class UnitInterval(AbstractDomain):
    """Entries in [0, 1], as for momenta, mixing coefficients and example weights.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.UnitInterval().project(jnp.array([-1.0, 0.5, 2.0])).tolist()
        [0.0, 0.5, 1.0]
    """

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Clips each entry to [0, 1]."""
        return projections.projection_hypercube(x)

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry is in [0, 1], within ``tol``."""
        return jnp.all((x >= -tol) & (x <= 1 + tol))
