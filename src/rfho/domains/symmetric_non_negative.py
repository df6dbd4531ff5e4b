"""Symmetric non-negative matrices with zero diagonal, as for task interactions.

{C : C = Cᵀ, C >= 0, C_ii = 0, ΣC <= R}, the set of the multi-task experiment of
arXiv 1703.01785 (section 5.2); without R there is no bound on the sum.

The first and third constraints make a linear subspace, and projecting a matrix of that
subspace onto the other two stays in it. So the two projections are done in turn:
S = (X + Xᵀ) / 2 without its diagonal, then max(S, 0) if that is within the budget, and
otherwise the simplex of total R, which lowers every entry by the same amount.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float
from optax import projections

from rfho.domains.base import AbstractDomain, known, not_finite, parameter


class SymmetricNonNegative(AbstractDomain):
    """Square matrices, symmetric, non-negative, with zero diagonal.

    Attributes:
        radius: optional non-negative scalar R, a bound on the sum of all entries (each
            pair counts twice). By default there is none.

    Raises:
        ValueError: when built, if ``radius`` is given and no finite non-negative scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> domains.SymmetricNonNegative().project(jnp.array([[9.0, 4.0], [2.0, 9.0]])).tolist()
        [[0.0, 3.0], [3.0, 0.0]]
    """

    radius: float | Array | None = eqx.field(
        converter=lambda radius: None if radius is None else parameter(radius), default=None
    )

    def __check_init__(self) -> None:
        radius = None if self.radius is None else known(self.radius)
        if radius is not None and not (radius.ndim == 0 and 0 <= radius < np.inf):
            raise ValueError(
                f"SymmetricNonNegative got radius={self.radius}, but expected a finite "
                "non-negative scalar, or None for no bound on the sum"
            )

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest such matrix. Raises ValueError if ``x`` is not square."""
        if objection := _not_square(x.shape):
            raise ValueError(f"the leaf {objection}")
        symmetric = (x + x.T) / 2
        off_diagonal = jnp.where(jnp.eye(len(x), dtype=bool), 0, symmetric)
        spread = projections.projection_non_negative(off_diagonal)
        if self.radius is None:
            return spread
        radius = jnp.asarray(self.radius, x.dtype)
        # Asked this way round, a NaN takes the branch that keeps it.
        return jnp.where(jnp.sum(spread) > radius, _spend(spread, radius), spread)

    def contains(self, x: Float[Array, "*shape"], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether symmetry, sign, diagonal and sum are right within ``tol``."""
        shaped = jnp.all(jnp.abs(x - x.T) <= tol) & jnp.all(jnp.abs(jnp.diagonal(x)) <= tol)
        signed = shaped & jnp.all(x >= -tol)
        if self.radius is None:
            return signed
        radius = jnp.asarray(self.radius, x.dtype)
        return signed & (jnp.sum(x) <= radius + tol * jnp.maximum(1, radius))

    def objection(self, x: Any) -> str | None:
        """Objects to anything but a square matrix."""
        return not_finite(x) or _not_square(np.shape(x))


def _spend(spread: Float[Array, "n n"], radius: Float[Array, ""]) -> Float[Array, "n n"]:
    """The projection where the bound on the sum binds.

    The amount taken from each entry is then positive, so the zero diagonal stays zero.
    """
    shifted = spread - lax.stop_gradient(jnp.max(spread, initial=0))
    possible = jnp.where(radius > 0, radius, 1)
    # Optax computes partly in the default precision: back to that of the leaf.
    within = projections.projection_simplex(shifted, possible).astype(spread.dtype)
    return jnp.where(radius > 0, within, 0)


def _not_square(shape: tuple[int, ...]) -> str | None:
    if len(shape) == 2 and shape[0] == shape[1]:
        return None
    return (
        f"has shape {shape}, but SymmetricNonNegative holds square matrices: "
        "give a leaf of shape (tasks, tasks)"
    )
