"""Conjugate gradients, plain and on the normal equations (Hestenes and Stiefel, 1952).

Lineax's CG is not used: it keeps its pᵀM p to itself, where a negative one is the proof that M is
not positive definite; and it gives up with NaN where pᵀM p <= 200 n ε rᵀr (lineax 0.1.1), which in
float32 with n = 7840 parameters is any M whose curvatures fall below 0.19.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho.solvers.base import (
    AbstractSolver,
    Assumptions,
    Operator,
    Solve,
    count,
    finished,
)
from rfho.typing import PyTree, Scalar


class CG(AbstractSolver):
    """Conjugate gradients: the fewest products there are for a symmetric positive definite M.

    The error falls at least as (√κ - 1)/(√κ + 1) per product, κ the condition number. A direction
    without positive curvature ends the search: the answer is the one before it, and
    `Solve.curvature` tells.

    Args:
        max_products: products in all, with the one at the start and the one for the residual.

    Cost:
        One product per step; memory 4 vectors.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])
        >>> operator = rfho.solvers.Operator(lambda q: matrix @ q, lambda q: matrix.T @ q)
        >>> solve = rfho.solvers.CG().solve(
        ...     operator, jnp.array([3.0, 4.0]), jnp.zeros(2), tolerance=1e-6
        ... )
        >>> bool(jnp.allclose(solve.solution, 1.0)), int(solve.products)
        (True, 4)
    """

    max_products: int = eqx.field(static=True, default=100)

    def __check_init__(self) -> None:
        count(self.max_products, "max_products", self, least=3)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """Steps until the residual is below ``tolerance`` or the products are used up."""
        goal = tolerance * tree.norm(right)
        residual = tree.subtract(right, operator.apply(start))
        squared = tree.dot(residual, residual)
        search = _Search(
            start, residual, residual, squared, jnp.asarray(1), jnp.full_like(squared, jnp.inf)
        )

        def goes_on(at: _Search) -> Array:
            # One product is left for the true residual.
            enough = (jnp.sqrt(at.squared) <= goal) | (at.products >= self.max_products - 1)
            return ~enough & (at.curvature > 0)

        def step(at: _Search) -> _Search:
            image = operator.apply(at.direction)
            bend = tree.dot(at.direction, image)
            length = jnp.where(bend > 0, at.squared / jnp.where(bend > 0, bend, 1), 0)
            residual = tree.subtract(at.residual, tree.scale(length, image))
            squared = tree.dot(residual, residual)
            return _Search(
                tree.add(at.solution, tree.scale(length, at.direction)),
                residual,
                tree.add(residual, tree.scale(squared / at.squared, at.direction)),
                squared,
                at.products + 1,
                jnp.minimum(at.curvature, bend / tree.dot(at.direction, at.direction)),
            )

        end = jax.lax.while_loop(goes_on, step, search)
        return finished(
            operator, right, end.solution, products=end.products, curvature=end.curvature
        )

    @property
    def most_products(self) -> int:
        """As many as are allowed."""
        return self.max_products

    def assumes(self) -> Assumptions:
        """Symmetric and positive definite."""
        return Assumptions(symmetric=True, definite=True)


class NormalEquations(AbstractSolver):
    """Conjugate gradients on Mᵀ M q = Mᵀ v: for any regular M, at the price of κ².

    Written so that the residual v - M q itself is carried along (CGLS), which keeps more digits
    than `CG` applied to Mᵀ M would.

    Args:
        max_products: products in all, with M and Mᵀ.

    Cost:
        Two products per step; memory 4 vectors.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(rfho.solvers.NormalEquations())
    """

    max_products: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        count(self.max_products, "max_products", self, least=5)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """Steps until the residual is below ``tolerance`` or the products are used up."""
        goal = tolerance * tree.norm(right)
        residual = tree.subtract(right, operator.apply(start))
        slope = operator.transpose(residual)
        squared = tree.dot(slope, slope)
        search = _Search(
            start, residual, slope, squared, jnp.asarray(2), jnp.full_like(squared, jnp.inf)
        )

        def goes_on(at: _Search) -> Array:
            enough = (tree.norm(at.residual) <= goal) | (at.products >= self.max_products - 2)
            return ~enough & (at.squared > 0)

        def step(at: _Search) -> _Search:
            image = operator.apply(at.direction)
            bend = tree.dot(image, image)
            length = jnp.where(bend > 0, at.squared / jnp.where(bend > 0, bend, 1), 0)
            residual = tree.subtract(at.residual, tree.scale(length, image))
            slope = operator.transpose(residual)
            squared = jnp.where(bend > 0, tree.dot(slope, slope), 0)
            return _Search(
                tree.add(at.solution, tree.scale(length, at.direction)),
                residual,
                tree.add(slope, tree.scale(squared / at.squared, at.direction)),
                squared,
                at.products + 2,
                at.curvature,
            )

        end = jax.lax.while_loop(goes_on, step, search)
        return finished(operator, right, end.solution, products=end.products)

    @property
    def most_products(self) -> int:
        """As many as are allowed."""
        return self.max_products

    def assumes(self) -> Assumptions:
        """Nothing."""
        return Assumptions()


class _Search(NamedTuple):
    """Where the search stands.

    Attributes:
        residual: v - M q.
        squared: ‖residual‖², of `NormalEquations` ‖Mᵀ residual‖².
        curvature: the smallest pᵀM p / pᵀp so far.
    """

    solution: PyTree
    residual: PyTree
    direction: PyTree
    squared: Scalar
    products: Int[Array, ""]
    curvature: Scalar
