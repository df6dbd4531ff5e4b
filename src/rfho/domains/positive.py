"""Positive numbers on the logarithmic scale, u = log x, as for learning rates.

The open set {x : x > 0} has no projection, hence a floor: P(x) = max(x, floor). In the chart
an outer step of length η multiplies x by exp(±η), whatever the magnitude of x, so a step size
that suits an uncharted hyperparameter is rarely right here.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rfho.domains.base import known, not_finite, parameter
from rfho.domains.logarithmic import AbstractLogarithmic, without_logarithm


class Positive(AbstractLogarithmic):
    """Entries at least ``floor`` > 0, moved by the outer optimiser in log x.

    Attributes:
        floor: a positive scalar, by default 1e-12. In a dtype that cannot hold it, the
            smallest normal number of the dtype takes its place.

    Raises:
        ValueError: when built, if ``floor`` is no finite positive scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domain = domains.Positive(floor=1e-6)
        >>> domain.unchart(domain.chart(jnp.array(0.5)) + jnp.log(2.0)).item()
        1.0
    """

    floor: float | Array = eqx.field(converter=parameter, default=1e-12)

    def __check_init__(self) -> None:
        floor = known(self.floor)
        if floor is not None and not (floor.ndim == 0 and 0 < floor < np.inf):
            raise ValueError(
                f"Positive got floor={self.floor}, but expected a finite positive scalar: "
                "use NonNegative() if zero is allowed"
            )

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Raises to the floor the entries below it."""
        return jnp.maximum(x, self._floor(x))

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry is positive, and at least ``floor`` within a factor 1 - ``tol``."""
        return jnp.all((x > 0) & (x >= self._floor(x) * (1 - tol)))

    def objection(self, x: Any) -> str | None:
        """Objects to entries without a logarithm too."""
        if objection := not_finite(x):
            return objection
        return without_logarithm(
            x, "Positive()", "start from a positive number, or use NonNegative()"
        )

    def _floor(self, x: Array) -> Array:
        return jnp.maximum(jnp.asarray(self.floor, x.dtype), jnp.finfo(x.dtype).tiny)
