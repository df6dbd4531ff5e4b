"""How wrong an implicit hypergradient is, from a Newton step of its own.

Let w* solve F(w, λ) = 0 and h* = ∂_λE - C q* be the hypergradient there, where C = (∂²_λw L) and
H q* = ∂_wE. Training stopped at ŵ, the solver at q̂, and the answer is ĥ. With
Λ(w) = E(w, λ) - q̂·F(w, λ), for which ∂_λΛ(ŵ) = ĥ and ∂_wΛ(ŵ) = r̂, the residual of the solve,

    h* - ĥ = ∂_λΛ(w*) - ∂_λΛ(ŵ) - C* (q* - q̂),    H* (q* - q̂) = r̂ + ∂_wΛ(w*) - ∂_wΛ(ŵ)

exactly. So if H has no curvature below μ between ŵ and w*, and Λ's slopes change by no more than
L_λ and L_w per unit of distance,

    ‖h* - ĥ‖ <= L_λ d + ‖C‖ (‖r̂‖ + L_w d) / μ,    d = ‖w* - ŵ‖ <= ‖F(ŵ)‖ / μ.        (*)

The audit takes one Newton step from ŵ to w⁺, solves again there, starting from q̂, and measures
L_λ and L_w along the step. It then knows ‖h⁺ - ĥ‖, and (*) holds at (w⁺, q⁺), where F and r are
far smaller:

    ‖h* - ĥ‖ <= ‖h⁺ - ĥ‖ + (*) at (w⁺, q⁺).

What it assumes: H positive definite on the way from w⁺ to w*, with no curvature below the μ seen
at w⁺; L_λ, L_w at most twice what they were along the step. What it cannot know: another minimum,
and an eigenvalue that Lanczos missed.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho import tree
from rfho.adjoint import AbstractCondition, System
from rfho.problem import Problem, Reading
from rfho.solvers import CG, AbstractSolver, NormalEquations, Operator
from rfho.solvers.base import count, positive, relative
from rfho.spectrum import Spectrum, asymmetry, epsilon, lanczos, radius, random_direction
from rfho.typing import Hyper, PyTree, Scalar, State

_SOLVED = 1e-4


class Spread(NamedTuple):
    """What is known of the matrix at w⁺.

    Attributes:
        curvature: its smallest eigenvalue as seen (singular value, if it is not symmetric); 0 if
            it is lost in rounding.
        least: μ, a lower estimate of it; 0 if there is none.
        largest: an upper estimate of its largest.
    """

    curvature: Scalar
    least: Scalar
    largest: Scalar


class Further(NamedTuple):
    """One Newton step on from ŵ: all that objectives share.

    Attributes:
        system: the condition at w⁺.
        reading: the objectives there.
        spread: of its matrix.
        distance: ‖w⁺ - ŵ‖.
        rest: the bound on ‖w* - w⁺‖.
        cross_norm: an upper estimate of ‖C‖.
        products: the products that it took.
        stats: what there is to report.
    """

    system: System
    reading: Reading
    spread: Spread
    distance: Scalar
    rest: Scalar
    cross_norm: Scalar
    products: Int[Array, ""]
    stats: dict[str, Scalar]


class Verdict(NamedTuple):
    """How wrong one answer is.

    Attributes:
        error: ‖h⁺ - ĥ‖, the error as the audit estimates it.
        error_bound: the bound above; infinite where no μ > 0 is known.
        size: ‖h⁺‖, to measure both by.
        products: the products that it took.
    """

    error: Scalar
    error_bound: Scalar
    size: Scalar
    products: Int[Array, ""]


class Audit(eqx.Module):
    """An independent look at an implicit hypergradient, for a fixed number of products.

    Args:
        products: at most so many for each of three things: the extreme curvatures, the Newton step,
            and the solve after it; half as many for the norm of ∂²_λw L. More of them tighten the
            bound.
        curvature: a lower bound on the smallest curvature, where one is known: the weight of an L2
            penalty λ ‖w‖² is 2 λ. Without it one is estimated.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(audit=rfho.Audit(products=50))
    """

    products: int = eqx.field(static=True, default=20)
    curvature: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        count(self.products, "products", self, least=4)
        if self.curvature is not None:
            positive(self.curvature, "curvature", self)

    def further(
        self,
        condition: AbstractCondition,
        problem: Problem,
        hyper: Hyper,
        *,
        state: State,
        system: System,
        contraction: float | None,
    ) -> Further:
        """One Newton step on from ``state``, and a look at the matrix there."""
        newton = self._solver(system).solve(
            _transposed(system.operator),
            tree.scale(-1, system.slope),
            _zeros(system.slope),
            tolerance=_SOLVED,
        )
        unknowns = tree.add(condition.unknowns(state), newton.solution)
        state = condition.replaced(state, unknowns)
        after = condition.system(problem, hyper, state)
        probe, other = random_direction(unknowns, 0), random_direction(unknowns, 1)
        spread, looked = self._spread(after, probe)
        rounding = 10 * epsilon(unknowns) * spread.largest * tree.norm(unknowns)
        stats = {
            "curvature": spread.curvature,
            "asymmetry": asymmetry(after.operator.apply, probe, other),
        }
        if contraction is not None:
            stats["spectral_radius"] = self._radius(after, probe, contraction, spread)
        return Further(
            after,
            problem.read(state, hyper),
            spread,
            tree.norm(newton.solution),
            _over(tree.norm(after.slope) + rounding, spread.least),
            self._cross_norm(after, unknowns, hyper),
            newton.products + looked + 2 * self._few,
            stats,
        )

    def verdict(
        self,
        further: Further,
        hypergradient: Hyper,
        q: PyTree,
        *,
        residual: PyTree,
        by_unknowns: PyTree,
        by_hyper: Hyper,
    ) -> Verdict:
        """How wrong ``hypergradient`` is, the answer for one objective.

        Args:
            further: the Newton step.
            hypergradient: ĥ.
            q: q̂.
            residual: r̂ = ∂_wE - H q̂ at ŵ.
            by_unknowns: ∂_wE at w⁺.
            by_hyper: ∂_λE at w⁺.
        """
        system, spread = further.system, further.spread
        left = tree.subtract(by_unknowns, system.operator.apply(q))
        slope_by_hyper = tree.subtract(by_hyper, system.cross(q))
        solved = self._solver(system).solve(system.operator, left, _zeros(left), tolerance=_SOLVED)
        better = tree.subtract(slope_by_hyper, system.cross(solved.solution))
        error = tree.norm(tree.subtract(better, hypergradient))
        # How fast Λ's slopes change, as measured along the Newton step; twice that is allowed for.
        lip_hyper, lip_unknowns = (
            2 * relative(tree.norm(change), further.distance)
            for change in (
                tree.subtract(slope_by_hyper, hypergradient),
                tree.subtract(left, residual),
            )
        )
        length = tree.norm(tree.add(q, solved.solution))
        rounding = 10 * epsilon(q) * (tree.norm(by_unknowns) + spread.largest * length)
        remains = solved.residual * tree.norm(left) + rounding + lip_unknowns * further.rest
        # (*) at (w⁺, q⁺)
        bound = lip_hyper * further.rest + _over(further.cross_norm * remains, spread.least)
        bound = error + jnp.where(jnp.isnan(bound), jnp.inf, bound)
        return Verdict(error, bound, tree.norm(better), solved.products + 1)

    @property
    def _few(self) -> int:
        return self.products // 4

    def _solver(self, system: System) -> AbstractSolver:
        return CG(self.products) if system.symmetric else NormalEquations(2 * self.products)

    def _spread(self, system: System, probe: PyTree) -> tuple[Spread, int]:
        if system.symmetric:
            seen = lanczos(system.operator.apply, probe, self.products)
            values, looked = seen, self.products
        else:
            apply, transpose = system.operator
            seen = lanczos(lambda q: apply(transpose(q)), probe, self.products)
            values, looked = _roots(seen), 2 * self.products
        lost = jnp.abs(seen.smallest) <= 100 * epsilon(probe) * seen.largest
        curvature = jnp.where(lost, 0, values.smallest)
        least = jnp.maximum(values.smallest - values.below, 0)
        least = jnp.where(lost, 0, least)
        if self.curvature is not None:
            least = jnp.full_like(least, self.curvature)
        return Spread(curvature, least, values.largest + values.above), looked

    def _radius(self, system: System, probe: PyTree, rate: float, spread: Spread) -> Scalar:
        if system.symmetric:
            # Lanczos is surer of the ends than powers of the matrix are.
            ends = jnp.stack([spread.curvature, spread.largest])
            return jnp.max(jnp.abs(1 - rate * ends))
        iteration = lambda q: tree.subtract(q, tree.scale(rate, system.operator.apply(q)))  # noqa: E731
        return radius(iteration, probe, self.products)

    def _cross_norm(self, system: System, unknowns: PyTree, hyper: Hyper) -> Scalar:
        def squared(direction: Hyper) -> Hyper:
            (across,) = jax.linear_transpose(system.cross, unknowns)(direction)
            return system.cross(across)

        seen = lanczos(squared, random_direction(hyper, 2), self._few)
        return jnp.sqrt(jnp.maximum(seen.largest + seen.above, 0))


def _roots(squares: Spectrum) -> Spectrum:
    """Singular values from the eigenvalues of M Mᵀ."""
    root = lambda value: jnp.sqrt(jnp.maximum(value, 0))  # noqa: E731
    smallest, largest = root(squares.smallest), root(squares.largest)
    return Spectrum(
        smallest,
        smallest - root(squares.smallest - squares.below),
        largest,
        root(squares.largest + squares.above) - largest,
    )


def _transposed(operator: Operator) -> Operator:
    return Operator(operator.transpose, operator.apply)


def _over(size: Scalar, least: Scalar) -> Scalar:
    return jnp.where(least > 0, size / jnp.where(least > 0, least, 1), jnp.inf)


def _zeros(vector: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, vector)
