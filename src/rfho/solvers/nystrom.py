"""The Nyström approximation of a Hessian, inverted at once (arXiv 2302.09726).

With k random columns C = M[:, K] and the block W = M[K, K],

    M ≈ C W⁺ Cᵀ = B Bᵀ,    (ρ I + B Bᵀ)⁻¹ v = (v - B (ρ I + Bᵀ B)⁻¹ Bᵀ v) / ρ    (Woodbury)

where B = C W^(-1/2): the symmetric form keeps in float32 the digits that W + Cᵀ C / ρ would lose.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from rfho._programs import trees as tree
from rfho.solvers.base import (
    AbstractSolver,
    Assumptions,
    Operator,
    Solve,
    count,
    finished,
    positive,
)
from rfho.typing import PyTree, Scalar


class Nystrom(AbstractSolver):
    """A fixed number of products and no iteration: exact on the columns that were drawn, 1/ρ beyond.

    Good where few curvatures are large and ρ stands for the others. It solves for the correction
    of ``start``, so that a warm start is refined.

    Args:
        rank: k, the columns drawn; at most as many as there are parameters.
        damping: ρ > 0.
        seed: of the draw.

    Cost:
        ``rank`` + 2 products, one after the other; memory ``rank`` vectors. Does not look at the
        tolerance.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(
        ...     rfho.solvers.Nystrom(rank=20, damping=0.1)
        ... )
    """

    rank: int = eqx.field(static=True)
    damping: float = eqx.field(static=True)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        count(self.rank, "rank", self)
        count(self.seed, "seed", self, least=0)
        positive(self.damping, "damping", self)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """``start`` + (ρ I + M_k)⁻¹ (v - M ``start``)."""
        left, unravel = ravel_pytree(tree.subtract(right, operator.apply(start)))
        rank = min(self.rank, left.size)
        drawn = jax.random.choice(jax.random.key(self.seed), left.size, (rank,), replace=False)

        def column(index: Int[Array, ""]) -> Float[Array, " size"]:
            axis = jnp.zeros_like(left).at[index].set(1)
            return ravel_pytree(operator.apply(unravel(axis)))[0]

        columns = jax.lax.map(column, drawn)
        factor = _inverse_root(columns[:, drawn]) @ columns
        inside = factor @ factor.T + self.damping * jnp.eye(rank, dtype=left.dtype)
        outside = left - factor.T @ jnp.linalg.solve(inside, factor @ left)
        solution = tree.add(start, unravel(outside / self.damping))
        return finished(operator, right, solution, products=jnp.asarray(rank + 1))

    @property
    def most_products(self) -> int:
        """One for each column, and one for the residual."""
        return self.rank + 1

    def assumes(self) -> Assumptions:
        """Symmetric; curvatures below 0 are taken for 0."""
        return Assumptions(symmetric=True)


def _inverse_root(block: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """W^(-1/2) on the range of W."""
    values, vectors = jnp.linalg.eigh((block + block.T) / 2)
    floor = block.shape[0] * jnp.finfo(block.dtype).eps * jnp.max(jnp.abs(values))
    kept = values > floor
    roots = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    return (vectors * roots) @ vectors.T
