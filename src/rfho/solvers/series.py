"""The Neumann series, cut off: M⁻¹ = η Σ_j (I - η M)^j.

Each term costs one product, and nothing tells whether there are enough of them: the residual of K
terms from zero is (I - η M)^K v. It vanishes if the spectral radius of I - η M is below 1, slowly
where η times the smallest curvature is small, and grows without bound where it is above 1. With η
the rate of plain gradient descent, K terms are the last K steps of the reverse sweep at a
stationary point (arXiv 1911.02590, 1810.10667).
"""

import equinox as eqx
import jax
import jax.numpy as jnp

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
from rfho.typing import PyTree, Scalar, Step


class Neumann(AbstractSolver):
    r"""K terms of the Neumann series, by :math:`q \leftarrow q + \eta (v - M q)`.

    With the condition `rfho.FixedPoint` and ``rate=1`` this is the fixed-point iteration
    :math:`q \leftarrow (\partial_s \Phi)^\top q + v` of arXiv 2006.16218.

    Args:
        terms: K.
        rate: η, below 2 divided by the largest curvature.

    Cost:
        One product per term; memory 2 vectors. Does not look at the tolerance.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(
        ...     rfho.solvers.Neumann(terms=20, rate=0.1)
        ... )
    """

    terms: int = eqx.field(static=True)
    rate: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        count(self.terms, "terms", self)
        positive(self.rate, "rate", self)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """K iterations from ``start``."""

        def one(_: Step, q: PyTree) -> PyTree:
            return tree.add(q, tree.scale(self.rate, tree.subtract(right, operator.apply(q))))

        solution = jax.lax.fori_loop(0, self.terms, one, start)
        return finished(operator, right, solution, products=self.terms)

    @property
    def most_products(self) -> int:
        """One for each term, and one for the residual."""
        return self.terms + 1

    def assumes(self) -> Assumptions:
        """That I - η M is a contraction."""
        return Assumptions(contraction=self.rate)


class OneStep(AbstractSolver):
    """q = η v, the first term of the series: the T1-T2 method of Luketina et al. (ICML 2016).

    The hypergradient that remains is the one of the last training step alone.

    Args:
        rate: η, the rate of the training step.

    Cost:
        One product, for the residual. Looks at neither start nor tolerance.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(rfho.solvers.OneStep(rate=0.1))
    """

    rate: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        positive(self.rate, "rate", self)

    def solve(
        self, operator: Operator, right: PyTree, start: PyTree, *, tolerance: Scalar | float
    ) -> Solve:
        """η v."""
        return finished(operator, right, tree.scale(self.rate, right), products=jnp.asarray(0))

    @property
    def most_products(self) -> int:
        """One, for the residual."""
        return 1

    def assumes(self) -> Assumptions:
        """Nothing that could be checked: it is an approximation wherever M is not I / η."""
        return Assumptions()
