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

The step also tells how fast H itself changes, L_H = 2 ‖F(w⁺) - F(ŵ) - H (w⁺ - ŵ)‖ / ‖w⁺ - ŵ‖², and
the theorem of Newton and Kantorovich what that means: where L_H ‖F(w⁺)‖ <= μ² / 2 there is a w*, at
a distance r of at most 2 ‖F(w⁺)‖ / μ, with no curvature below μ - L_H r on the way. Elsewhere there
is no bound, unless the curvature was given.

What it assumes: L_λ, L_w and L_H are at most twice as large on the rest of the way as they were
along the step, ‖C‖ is what it was at w⁺, and Lanczos has seen the smallest curvature and the
largest cross derivative to within its own error estimate.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._implicit.condition import AbstractCondition, System
from rfho._implicit.curvature import Spread, contraction_of, cross_norm, spread_of
from rfho._programs import trees as tree
from rfho.problem.moment import AbstractMoment
from rfho.problem.objective import Reading
from rfho.solvers import CG, AbstractSolver, NormalEquations, Operator
from rfho.solvers.base import count, positive, relative
from rfho.solvers.lanczos import asymmetry, epsilon, random_direction
from rfho.typing import Hyper, PyTree, Scalar, State

_SOLVED = 1e-4


class Rest(NamedTuple):
    """The way that is left from w⁺ to w*.

    Attributes:
        distance: a bound on ‖w* - w⁺‖, infinite if there is none.
        least: no curvature on it is below this; 0 if none is known.
    """

    distance: Scalar
    least: Scalar


class Further(NamedTuple):
    """One Newton step on from ŵ: all that objectives share.

    Attributes:
        system: the condition at w⁺.
        reading: the objectives there.
        distance: ‖w⁺ - ŵ‖.
        rest: the way that is left.
        largest: an upper estimate of the largest curvature.
        cross_norm: an upper estimate of ‖C‖.
        products: the products that it took.
        stats: what there is to report.
    """

    system: System
    reading: Reading
    distance: Scalar
    rest: Rest
    largest: Scalar
    cross_norm: Scalar
    products: Int[Array, ""]
    stats: dict[str, Scalar]


class Inaccuracy(NamedTuple):
    """How wrong one answer is.

    Attributes:
        error: ‖h⁺ - ĥ‖, the error as the audit estimates it.
        error_bound: the bound above; infinite where no μ > 0 is known.
        relative_error: ``error`` / ‖h⁺‖.
        relative_error_bound: ``error_bound`` / ‖h⁺‖.
        excess: ``error`` / (‖∂_λE‖ + ‖C‖ ‖q⁺‖), which no hypergradient at w⁺ can be longer than: above 1
            the answer means nothing.
        products: the products that it took.
    """

    error: Scalar
    error_bound: Scalar
    relative_error: Scalar
    relative_error_bound: Scalar
    excess: Scalar
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
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(
        ...     audit=rfho.hyper_gradients.Audit(products=50)
        ... )
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
        problem: AbstractMoment,
        hyper: Hyper,
        *,
        state: State,
        system: System,
        contraction: float | None,
    ) -> Further:
        """One Newton step on from ``state``, and a look at the matrix there."""
        newton = self._solver(system).solve(
            _transposed(system.operator),
            tree.scale(-1.0, system.slope),
            _zeros(system.slope),
            tolerance=_SOLVED,
        )
        unknowns = tree.add(condition.unknowns(state), newton.solution)
        state = condition.replaced(state, unknowns)
        after = condition.system(problem, hyper, state)
        probe, other = random_direction(unknowns, 0), random_direction(unknowns, 1)
        spread = spread_of(after, probe, self.products, known=self.curvature)
        stats = {
            "curvature": spread.curvature,
            "largest": spread.largest,
            "asymmetry": asymmetry(after.operator.apply, probe, other),
        }
        if contraction is not None:
            stats["spectral_radius"] = contraction_of(
                after, probe, spread, rate=contraction, products=self.products
            )
        few = self.products // 4
        return Further(
            after,
            problem.read(state, hyper),
            tree.norm(newton.solution),
            self._rest(system, after, newton.solution, unknowns=unknowns, spread=spread),
            spread.largest,
            cross_norm(after, unknowns, hyper, products=few),
            # Three more for the asymmetry and the bend.
            newton.products + spread.products + 2 * few + 3,
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
    ) -> Inaccuracy:
        """How wrong ``hypergradient`` is, the answer for one objective.

        Args:
            further: the Newton step.
            hypergradient: ĥ.
            q: q̂.
            residual: r̂ = ∂_wE - H q̂ at ŵ.
            by_unknowns: ∂_wE at w⁺.
            by_hyper: ∂_λE at w⁺.
        """
        system, rest = further.system, further.rest
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
        rounding = 10 * epsilon(q) * (tree.norm(by_unknowns) + further.largest * length)
        remains = solved.residual * tree.norm(left) + rounding + lip_unknowns * rest.distance
        # (*) at (w⁺, q⁺)
        bound = lip_hyper * rest.distance + _over(further.cross_norm * remains, rest.least)
        longest = tree.norm(by_hyper) + further.cross_norm * length
        bound += 10 * epsilon(better) * longest
        bound = error + jnp.where(jnp.isnan(bound), jnp.inf, bound)
        size = tree.norm(better)
        return Inaccuracy(
            error,
            bound,
            relative(error, size),
            relative(bound, size),
            relative(error, longest),
            solved.products + 1,
        )

    def _rest(
        self, before: System, after: System, step: PyTree, *, unknowns: PyTree, spread: Spread
    ) -> Rest:
        """How far w* can be from w⁺ (Newton and Kantorovich)."""
        size = tree.norm(step)
        rounding = 10 * epsilon(step) * spread.largest * tree.norm(unknowns)
        # F(w⁺) - F(ŵ) - H (w⁺ - ŵ)
        line = tree.add(before.slope, before.operator.transpose(step))
        bent = tree.norm(tree.subtract(after.slope, line))
        bend = 2 * 2 * relative(jnp.maximum(bent - rounding, 0), size**2)
        slope = tree.norm(after.slope) + rounding
        near = _over(slope, spread.least)
        if self.curvature is not None:
            return Rest(near, spread.least)
        h = bend * _over(near, spread.least)
        known = h <= 0.5
        distance = near * 2 / (1 + jnp.sqrt(jnp.where(known, 1 - 2 * h, 1)))
        least = jnp.maximum(spread.least - bend * distance, 0)
        return Rest(jnp.where(known, distance, jnp.inf), jnp.where(known, least, 0))

    def _solver(self, system: System) -> AbstractSolver:
        return CG(self.products) if system.symmetric else NormalEquations(2 * self.products)


def _transposed(operator: Operator) -> Operator:
    return Operator(operator.transpose, operator.apply)


def _over(size: Scalar, least: Scalar) -> Scalar:
    return jnp.where(least > 0, size / jnp.where(least > 0, least, 1), jnp.inf)


def _zeros(vector: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, vector)
