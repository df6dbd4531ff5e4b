r"""Entries in [0, 1] with a budget: {x : 0 <= x <= 1, Σx <= R}.

The set of arXiv 1703.01785 (section 5.1), where x_i weighs training example i and the
budget makes the weights compete. From the optimality conditions, for one μ >= 0,

.. math::

    P(x)_i = \min(\max(x_i - \mu, 0), 1), \qquad \mu = 0 \ \text{ or } \ \sum_i P(x)_i = R.

Bisection on μ finds which entries are free (F, strictly between the caps) and which are full
(U, at 1); given these, μ has the closed form

.. math::

    \mu = \Bigl(\sum_{i \in F} x_i + \lvert U \rvert - R\Bigr) / \lvert F \rvert.

Differentiating the closed form with the two sets held fixed gives the derivative, which
the loop of the bisection on its own would lose.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from rfho.domains.base import AbstractDomain, known, parameter

# Halvings of an interval no wider than max(x): beyond the resolution of a double.
_HALVINGS = 64


class CappedL1(AbstractDomain):
    """Entries in [0, 1], over all axes of the leaf together, that sum to at most ``radius``.

    Time O(n) for n entries, exact to rounding: no sorting, no solver.

    Attributes:
        radius: non-negative scalar R. With R = 0 the set is the origin; with R at
            least the number of entries the budget is idle.

    Raises:
        ValueError: when built, if ``radius`` is no finite non-negative scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.CappedL1(1.5).project(jnp.array([2.0, 0.75, 0.5, -1.0])).tolist()
        [1.0, 0.375, 0.125, 0.0]
    """

    radius: float | Array = eqx.field(converter=parameter)

    def __check_init__(self) -> None:
        radius = known(self.radius)
        if radius is not None and not (radius.ndim == 0 and 0 <= radius < np.inf):
            raise ValueError(
                f"CappedL1 got radius={self.radius}, but expected a finite non-negative scalar: "
                "entries in [0, 1] sum to no less, and UnitInterval() is the set without a budget"
            )

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest entries in [0, 1] within the budget."""
        radius = jnp.asarray(self.radius, x.dtype)
        capped = jnp.clip(x, 0, 1)
        # Asked this way round, a NaN takes the branch that keeps it.
        return jnp.where(jnp.sum(capped) > radius, _spend(x, radius), capped)

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether every entry is in [0, 1] and the sum within the budget, within ``tol``."""
        radius = jnp.asarray(self.radius, x.dtype)
        in_box = jnp.all((x >= -tol) & (x <= 1 + tol))
        return in_box & (jnp.sum(x) <= radius + tol * jnp.maximum(1, radius))


def _spend(x: Float[Array, "*shape"], radius: Float[Array, ""]) -> Float[Array, "*shape"]:
    """The projection where the budget binds, so that the entries sum to the radius."""
    # Measured from the largest entry, the others lose no digits to its size.
    z = x - lax.stop_gradient(jnp.max(x, initial=0))
    threshold = _threshold(*lax.stop_gradient((x, z, radius)))
    full = z - threshold >= 1
    free = (z > threshold) & ~full
    count = jnp.maximum(jnp.sum(free), 1)
    mean = jnp.sum(jnp.where(free, z, 0)) / count
    # x_i - μ on the free set, with μ from the closed form.
    share = z - mean + (radius - jnp.sum(full)) / count
    return jnp.clip(jnp.where(free, share, full.astype(x.dtype)), 0, 1)


def _threshold(
    x: Float[Array, "*shape"], z: Float[Array, "*shape"], radius: Float[Array, ""]
) -> Float[Array, ""]:
    """The least threshold in [-max(x), 0], up to rounding, that keeps the budget.

    Its upper end is returned, where the budget is certain to hold: at the lower end an
    entry about to vanish would still count as free.
    """

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        fits = jnp.sum(jnp.clip(z - middle, 0, 1)) <= radius
        return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

    start = (-jnp.max(x, initial=0), jnp.zeros((), x.dtype))
    return lax.fori_loop(0, _HALVINGS, halve, start)[1]
