"""A unit of length for the outer optimiser: u = chart(x) / unit.

Adam moves every coordinate by about its rate, whatever the hyperparameter. What is a small step for one is
a leap for another, unless a coordinate of length 1 means something: a factor e in `Positive` and `LogBox`,
the whole range in `UnitInterval`. `Scaled` says it for the others, in the domain and once, so that one
outer rate suits all leaves and no `optax.partition` is needed.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rfho.domains.base import AbstractDomain, known, parameter
from rfho.domains.box import Box


class Scaled(AbstractDomain):
    """The same set as ``domain``, where an outer step of length 1 has the length ``unit``.

    Attributes:
        domain: the set.
        unit: in the chart of ``domain``; a positive scalar, or an array that broadcasts to the leaf. By
            default the width of a `Box`.

    Raises:
        ValueError: ``unit`` is not positive and finite, or is not given and ``domain`` has no width.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> share = domains.Scaled(domains.Box(-4.0, 12.0))
        >>> share.unchart(share.chart(jnp.array(0.0)) + 0.1).item()  # a tenth of the width
        1.600000023841858
    """

    domain: AbstractDomain
    unit: float | Array = eqx.field(converter=parameter)

    def __init__(self, domain: AbstractDomain, unit: Any = None) -> None:
        if unit is None and not isinstance(domain, Box):
            raise ValueError(
                f"Scaled got {domain} and no unit, but only a Box has a width to take for it: give unit="
            )
        self.domain = domain
        self.unit = domain.upper - domain.lower if unit is None else unit  # type: ignore[union-attr]

    def __check_init__(self) -> None:
        unit = known(self.unit)
        if unit is not None and not np.all((unit > 0) & (unit < np.inf)):
            raise ValueError(
                f"Scaled got the unit {unit}, but expected positive, finite numbers: of a Box with an open "
                "end, or with equal bounds, give unit="
            )

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """That of ``domain``."""
        return self.domain.project(x)

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """That of ``domain``."""
        return self.domain.contains(x, tol)

    def chart(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The chart of ``domain``, in units."""
        return self.domain.chart(x) / jnp.asarray(self.unit, x.dtype)

    def unchart(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The inverse of `chart`."""
        return self.domain.unchart(u * jnp.asarray(self.unit, u.dtype))

    def objection(self, x: Any) -> str | None:
        """That of ``domain``, and to a shape that the unit does not broadcast to."""
        if objection := self.domain.objection(x):
            return objection
        shape, unit = np.shape(x), np.shape(self.unit)
        try:
            fits = np.broadcast_shapes(unit, shape) == shape
        except ValueError:
            fits = False
        return None if fits else f"has shape {shape}, but Scaled has a unit of shape {unit}"
