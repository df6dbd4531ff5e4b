"""One interface for everything that solves M q = v without ever writing M down.

A solver sees the matrix through its products alone, so that q may be any pytree and M the Hessian
of a network. It says what it takes for granted about M, and always brings back the true residual,

    ‖v - M q‖ / ‖v‖,

computed from the answer itself rather than from a recurrence that may have drifted.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho.errors import positive_number
from rfho.typing import PyTree, Scalar


class Operator(NamedTuple):
    """A square matrix, given by its products.

    Attributes:
        apply: q ↦ M q.
        transpose: q ↦ Mᵀ q.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])
        >>> operator = rfho.solvers.Operator(lambda q: matrix @ q, lambda q: matrix.T @ q)
    """

    apply: Callable[[PyTree], PyTree]
    transpose: Callable[[PyTree], PyTree]


class Solve(NamedTuple):
    """What a solver brings back.

    Attributes:
        solution: q, in the structure of v.
        residual: ‖v - M q‖ / ‖v‖ of exactly this q; 0 where v is 0.
        products: products with M (and Mᵀ) that it took, the one for ``residual`` included.
        curvature: the smallest pᵀM p / pᵀp among the directions that were looked at. Below 0 it
            proves that M is not positive definite.
    """

    solution: PyTree
    residual: Scalar
    products: Int[Array, ""]
    curvature: Scalar


class Assumptions(NamedTuple):
    """What a solver takes for granted about M, and nobody but an audit looks after.

    Attributes:
        symmetric: M = Mᵀ.
        definite: pᵀM p > 0 for every p.
        contraction: the rate η for which the spectral radius of I - η M must be below 1; None if
            there is none.
    """

    symmetric: bool = False
    definite: bool = False
    contraction: float | None = None


class AbstractSolver(eqx.Module):
    """A way to solve M q = v."""

    @abc.abstractmethod
    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """q with ‖v - M q‖ <= tolerance · ‖v‖, or as near as the solver's budget allows.

        Args:
            operator: M.
            right: v, a pytree of inexact arrays.
            start: where the search begins, in the structure of v: zeros, or the solution of a
                neighbouring system.
            tolerance: of the relative residual; solvers of a fixed length do not look at it.
        """

    @property
    @abc.abstractmethod
    def most_products(self) -> int:
        """At most so many products with M are taken, for forecasts."""

    @abc.abstractmethod
    def assumes(self) -> Assumptions:
        """What must be true of M for the answer to mean anything."""


def finished(
    operator: Operator,
    right: PyTree,
    solution: PyTree,
    *,
    products: Any,
    curvature: Scalar | float = jnp.inf,
) -> Solve:
    """The `Solve` of ``solution``, after one more product that says how good it is."""
    image = operator.apply(solution)
    left = tree.subtract(right, image)
    squared = tree.dot(solution, solution)
    rayleigh = tree.dot(solution, image) / jnp.where(squared > 0, squared, 1)
    return Solve(
        solution,
        residual=relative(tree.norm(left), tree.norm(right)),
        products=jnp.asarray(products + 1, jnp.int32),
        curvature=jnp.where(squared > 0, jnp.minimum(rayleigh, curvature), curvature),
    )


def relative(size: Scalar, scale: Scalar) -> Scalar:
    """``size / scale``, and 0 where ``scale`` is 0."""
    return jnp.where(scale > 0, size / jnp.where(scale > 0, scale, 1), jnp.zeros_like(size))


def count(value: Any, name: str, solver: eqx.Module, *, least: int = 1) -> None:
    """Checks that ``value`` is an int of ``least`` or more.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{type(solver).__name__} got {name}={value!r}, but it must be an int of {least} or more"
        )


def positive(value: Any, name: str, solver: eqx.Module) -> None:
    """Checks that ``value`` is a positive, finite number.

    Raises:
        ValueError: it is not.
    """
    positive_number(value, name, type(solver).__name__)
