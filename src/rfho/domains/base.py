"""What every domain is: a closed convex set with its projection, and optionally a chart.

A domain D acts on one leaf of ``hyper`` at a time, through P(x) = argmin_{p in D} ‖p - x‖₂.
The outer step of projected gradient descent, in the coordinates u of the chart, is

    u = chart(λ)        u ← u + update(∂unchart(u) · g)        λ ← P(unchart(u))

Almost every domain keeps the identity as its chart: then this is the projected step of
arXiv 1703.01785. A projection is piecewise smooth; where it has a kink, the derivative
is that of one of the adjoining pieces or a mean of two.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from rfho._programs import trees as tree
from rfho._programs.tracing import is_traced


class AbstractDomain(eqx.Module):
    """A closed convex set of arrays, for one leaf of ``hyper``.

    A new domain gives `project` and `contains`. It gives `chart` and `unchart` if its
    coordinates are not the leaf itself, and `objection` if it cannot hold just any leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho import domains
        >>> class Ball(domains.AbstractDomain):
        ...     def project(self, x):
        ...         return x / jnp.maximum(1.0, jnp.linalg.norm(x))
        ...
        ...     def contains(self, x, tol=1e-6):
        ...         return jnp.linalg.norm(x) <= 1.0 + tol
        >>> Ball().project(jnp.array([3.0, 4.0])).tolist()
        [0.6000000238418579, 0.800000011920929]
    """

    @abc.abstractmethod
    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The point of the set nearest to ``x`` in the Euclidean norm.

        Works under `jax.jit` and `jax.vmap`, and has a jvp and a vjp unless the domain
        says otherwise. A NaN in ``x`` comes out as NaN; `check` refuses it beforehand.

        Args:
            x: one leaf of ``hyper``, of any shape that `check` accepts.

        Returns:
            The projection, of the shape and dtype of ``x``.
        """

    @abc.abstractmethod
    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether ``x`` satisfies each constraint of the set within ``tol``.

        Args:
            x: one leaf of ``hyper``.
            tol: allowed violation: absolute for an entry, and for a sum relative to
                its bound (absolute where the bound is below 1).

        Returns:
            A boolean scalar; False if ``x`` has a NaN.
        """

    def chart(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The coordinates in which the outer optimiser moves; here ``x`` itself."""
        return x

    def unchart(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The inverse of `chart`."""
        return u

    def objection(self, x: Any) -> str | None:
        """Why a leaf cannot be held in this set, as the end of a sentence.

        Asks about shape, dtype and values that make no sense, and not whether ``x`` is in
        the set, which is for `contains`.

        Args:
            x: one leaf of ``hyper``, with known values.

        Returns:
            None if all is well.
        """
        return not_finite(x)

    def check(self, x: Any, path: str) -> None:
        """Refuses, before anything is traced, a leaf that this set cannot hold.

        Args:
            x: one leaf of ``hyper``, with known values; anything that is no array of floats
                is refused, except by `Fixed`.
            path: where the leaf stands, as in ``hyper["lr"]``, for the message.

        Raises:
            ValueError: if `objection` has one. The message starts with ``path``.
        """
        objection = self.objection(x)
        if objection is not None:
            raise ValueError(f"{path} {objection}")


def not_finite(x: Any) -> str | None:
    """The objection to a leaf that is no array of finite floating-point numbers.

    Args:
        x: one leaf of ``hyper``, with known values.

    Returns:
        The end of a sentence, or None.
    """
    if not (tree.is_number(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)):
        kind = f"dtype {x.dtype}" if hasattr(x, "dtype") else f"type {type(x).__name__}"
        return (
            f"has {kind}, but a domain holds floating-point numbers: write 0.1 rather than 1, "
            "or mark it Fixed()"
        )
    if tree.is_finite(x):
        return None
    bad = int((~jnp.isfinite(x)).sum())
    return (
        f"has {bad} of {jnp.size(x)} entries that are not finite, and no projection is "
        "defined there: start from finite numbers"
    )


def parameter(value: ArrayLike) -> float | Array:
    """A bound or radius as the domain keeps it: a float, or an array if it was one.

    Args:
        value: a number or an array, traced or not.

    Returns:
        The same value, which ``jnp.asarray(value, x.dtype)`` brings to the type of a leaf.
    """
    if isinstance(value, (bool, int, float)):
        return float(value)
    return jnp.asarray(value)


def known(value: float | Array) -> np.ndarray | None:
    """The value of a parameter if it is known now, None while it is being traced."""
    return None if is_traced(value) else np.asarray(value)
