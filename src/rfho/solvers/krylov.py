"""Krylov methods for matrices that are neither symmetric nor definite, by Lineax.

`GMRES` (Saad and Schultz, 1986) takes the best q of a growing space and pays with its memory;
`BiCGStab` (van der Vorst, 1992) keeps a few vectors and may break down. MINRES, which would suit
symmetric indefinite systems, is not in Lineax: take `GMRES` or `NormalEquations`.

Systems are solved for v / ‖v‖, as Lineax compares some quantities with absolute thresholds.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jax import Array

from rfho._programs import trees as tree
from rfho.solvers.base import AbstractSolver, Assumptions, Operator, Solve, count, finished
from rfho.typing import PyTree, Scalar


class GMRES(AbstractSolver):
    """Generalised minimal residuals, restarted: for any regular M.

    Args:
        max_products: products in all, rounded up to whole cycles.
        restart: products per cycle, and vectors held; after a cycle the search starts anew from
            where it stands.

    Cost:
        One product per step; memory ``restart`` + 3 vectors. `Solve.products` counts whole cycles,
        an upper bound where the last one ended early.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(rfho.solvers.GMRES(restart=30))
    """

    max_products: int = eqx.field(static=True, default=100)
    restart: int = eqx.field(static=True, default=20)

    def __check_init__(self) -> None:
        count(self.max_products, "max_products", self, least=3)
        count(self.restart, "restart", self)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """Cycles until the residual is below ``tolerance`` or the products are used up."""
        cycle = min(self.restart, tree.size(right)) + 1
        # The first of Lineax's steps only computes the residual at the start.
        steps = 1 + max(1, -(-(self.max_products - 2) // cycle))
        solver = lineax.GMRES(
            rtol=0.0, atol=_positive(tolerance), norm=tree.norm, max_steps=steps, restart=cycle - 1
        )
        solution, done = _through_lineax(solver, operator, right, start)
        return finished(operator, right, solution, products=1 + (done - 1) * cycle)

    @property
    def most_products(self) -> int:
        """As many as are allowed."""
        return self.max_products

    def assumes(self) -> Assumptions:
        """Nothing."""
        return Assumptions()


class BiCGStab(AbstractSolver):
    """Stabilised biconjugate gradients: for any regular M in little memory, without a guarantee.

    Where it breaks down it returns what it has, and the residual says so. Without
    ``jax_enable_x64`` Lineax 0.1.1 takes any negative ρ, α or ω for a breakdown, which ends most
    searches early: prefer `GMRES` there.

    Args:
        max_products: products in all.

    Cost:
        Two products per step; memory 7 vectors.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(rfho.solvers.BiCGStab())
    """

    max_products: int = eqx.field(static=True, default=100)

    def __check_init__(self) -> None:
        count(self.max_products, "max_products", self, least=4)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """Steps until the residual is below ``tolerance``, or the products or the luck are used up."""
        steps = (self.max_products - 2) // 2
        solver = lineax.BiCGStab(
            rtol=0.0, atol=_positive(tolerance), norm=tree.norm, max_steps=steps
        )
        solution, done = _through_lineax(solver, operator, right, start)
        return finished(operator, right, solution, products=1 + 2 * done)

    @property
    def most_products(self) -> int:
        """As many as are allowed."""
        return self.max_products

    def assumes(self) -> Assumptions:
        """Nothing."""
        return Assumptions()


def _through_lineax(
    solver: lineax.AbstractLinearSolver, operator: Operator, right: PyTree, start: PyTree
) -> tuple[PyTree, Array]:
    """q and the steps that Lineax took for it."""
    size = tree.norm(right)
    inverse = 1 / jnp.where(size > 0, size, 1)
    structure = jax.eval_shape(lambda: right)
    found = lineax.linear_solve(
        lineax.FunctionLinearOperator(operator.apply, structure),
        tree.scale(inverse, right),
        solver,
        options={"y0": tree.scale(inverse, start)},
        throw=False,
    )
    solution = jax.tree.map(lambda q: jnp.where(size > 0, q, 0), found.value)
    return tree.scale(size, solution), found.stats["num_steps"]


def _positive(tolerance: Scalar | float) -> Any:
    # Lineax divides by it. It is said to be a float, and may be traced.
    tolerance = jnp.asarray(tolerance)
    return jnp.maximum(tolerance, jnp.finfo(tolerance.dtype).tiny)
