"""Bounds on each entry, moved on the logarithmic scale: {x : lower <= x <= upper}, lower > 0, u = log x.

`Positive` has the scale and no upper end, `Box` has the ends and no scale. A rate between 1e-5 and 1 or a
penalty between 1e-4 and 1e4 needs both: an outer step of length η multiplies x by exp(±η), and a
hyperparameter without influence stops at an end of the box instead of leaving for infinity.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rfho.domains.base import known, parameter
from rfho.domains.box import Box
from rfho.domains.logarithmic import AbstractLogarithmic, without_logarithm


class LogBox(AbstractLogarithmic):
    """Entries between two positive bounds, moved by the outer optimiser in log x.

    Attributes:
        lower: positive; a scalar, or an array that broadcasts to the leaf.
        upper: likewise, and finite.

    Raises:
        ValueError: when built, if a bound is not positive and finite, or a lower bound exceeds its upper
            bound.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domain = domains.LogBox(1e-4, 1.0)
        >>> domain.project(jnp.array([1e-9, 0.5, 7.0])).tolist()
        [9.999999747378752e-05, 0.5, 1.0]
    """

    lower: float | Array = eqx.field(converter=parameter)
    upper: float | Array = eqx.field(converter=parameter)

    def __check_init__(self) -> None:
        for name, bound in (("lower", known(self.lower)), ("upper", known(self.upper))):
            if bound is not None and not np.all((bound > 0) & (bound < np.inf)):
                raise ValueError(
                    f"LogBox got {name}={bound}, but log x needs positive, finite bounds: use Box() if zero is "
                    "allowed, or Positive() if there is no upper end"
                )
        _ = self._box

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Clips each entry. Raises ValueError if the bounds do not broadcast to ``x``."""
        return self._box.project(x)

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry is between its bounds, within a factor 1 ± ``tol``."""
        lower, upper = jnp.asarray(self.lower, x.dtype), jnp.asarray(self.upper, x.dtype)
        return jnp.all((x >= lower * (1 - tol)) & (x <= upper * (1 + tol)))

    def objection(self, x: Any) -> str | None:
        """Objects to entries without a logarithm, and to a shape that the bounds do not broadcast to."""
        if objection := self._box.objection(x):
            return objection.replace("but Box has", "but LogBox has")
        return without_logarithm(x, "LogBox", "start from a positive number, or use Box()")

    @property
    def _box(self) -> Box:
        return Box(self.lower, self.upper)
