"""Implicit differentiation at the end of training (HOAG, arXiv 1602.02355; 1911.02590; 2006.16218)."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._engines.reverse import roll
from rfho._implicit.audit import Audit, Further, Inaccuracy
from rfho._implicit.condition import AbstractCondition, Stationary, System, settled
from rfho._implicit.refusal import complaint_about
from rfho._implicit.tolerance import Tolerance, at_step, check_kind, check_tolerance
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import HyperGradientError
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of, evaluated
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment, select
from rfho.problem.objective import Reading
from rfho.solvers import CG, AbstractSolver, Solve
from rfho.typing import Hyper, Params, PyTree, Scalar, State


class Settled(NamedTuple):
    """The carry of a warm start: where training and the solver stood at the last estimate.

    Attributes:
        state: s, optimiser's slots included.
        t: inner steps done so far.
        adjoint: q, with a leading axis if there are several objectives.
    """

    state: State
    t: Int[Array, ""]
    adjoint: PyTree


class ImplicitHyperGradient(AbstractHyperGradient):
    r"""Hypergradient of the *minimiser*, by one linear solve where training has ended.

    The method of choice where the inner problem is solved well: its memory is that of a training
    step, and a warm start pays for training once. It differentiates where training ends, not how
    it gets there: a learning rate has no implicit gradient, and is refused.

    .. math:: \partial^2_{ww} L \, q = \partial_w E, \quad
              \nabla f = \partial_\lambda E - \partial^2_{\lambda w} L \, q

    The answer is as good as two residuals are small, that of training and that of the solve. An
    audit turns them into a bound on the error, see `Audit`.

    Training need not be gradient descent: `rfho.dynamics.Newton`, or `optax.lbfgs` under
    `rfho.dynamics.DescentWithValue`, ends at the minimum of a small convex loss in a few steps; with
    ``inner_tolerance`` it stops there.

    Args:
        solver: how q is found, one of `rfho.solvers`.
        condition: what holds at the end of training: `rfho.Stationary` or `rfho.FixedPoint`.
        warm_start: training and solve go on from where they stood at the last estimate; otherwise
            both begin anew.
        tolerance: ε of the solve, ‖v - H q‖ <= ε ‖v‖; a function of the outer step k for an ε_k
            whose sum is finite, as HOAG wants it: ``lambda k: 0.1 * 0.9**k``.
        inner_tolerance: training stops before the horizon once ‖∂_w L‖ is below it, which is looked
            at ten times; likewise a number or a function of k. By default all T steps are done.
        audit: what looks after the answer; None saves its products, and its statistics.
        refuse_above: the relative error bound above which `tune` and `hyper_gradient` raise a
            `HyperGradientError` with `Result.INACCURATE`. Below 1 the answer is certainly a descent
            direction. By default the bound is reported, and refused is what cannot be right: an assumption
            of the solver that does not hold, or an ``"excess"`` above 1.

    Cost:
        T training steps (fewer under a warm start, as T may then be small), and about one gradient
        per product; memory of one linearised gradient and four vectors under `rfho.solvers.CG`.

    Aux:
        ``stats`` has, with v = ∂_w E,

        - ``"residual"``: ‖v - H q‖ / ‖v‖; ``"stationarity"``: ‖∂_w L‖ where training ended;
        - ``"products"``: products with the matrix, the audit's included;
        - ``"curvature"``: the smallest seen, below 0 if H is not positive definite, 0 if it is
          singular to rounding; infinite if none that tells was seen;

        and from the audit

        - ``"error"``, ``"relative_error"``: the estimated error of the hypergradient's norm;
          ``"error_bound"``, ``"relative_error_bound"``: what it is below, infinite if no lower
          bound on the curvature could be established;
        - ``"largest"``: an upper estimate of the largest curvature;
        - ``"excess"``: ``"error"``, divided by the length that no hypergradient can exceed where one more
          Newton step leads;
        - ``"asymmetry"``: \|u·Hv - v·Hu\|, relative;
        - ``"spectral_radius"``: of I - η H, for solvers that are series in it.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper["l2"] * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.5), init=jnp.zeros(()))
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: w, train=None, valid=None, horizon=60
        ... )
        >>> method = rfho.hyper_gradients.ImplicitHyperGradient(refuse_above=0.01)
        >>> estimate = rfho.hyper_gradient(problem, {"l2": 1.0}, method)
        >>> round(float(estimate.hypergradient["l2"]), 4)  # w = 1 / (1 + l2)
        -0.25
    """

    solver: AbstractSolver = eqx.field(default_factory=CG)
    condition: AbstractCondition = eqx.field(default_factory=Stationary)
    warm_start: bool = eqx.field(static=True, default=True)
    tolerance: Tolerance = eqx.field(static=True, default=1e-6)
    inner_tolerance: Tolerance | None = eqx.field(static=True, default=None)
    audit: Audit | None = eqx.field(default_factory=Audit)
    refuse_above: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_kind(self.solver, AbstractSolver, "solver", "one of rfho.solvers, as CG()")
        check_kind(self.condition, AbstractCondition, "condition", "rfho.Stationary()")
        check_tolerance(self.tolerance, "tolerance")
        if self.inner_tolerance is not None:
            check_tolerance(self.inner_tolerance, "inner_tolerance")
        if self.refuse_above is not None:
            check_tolerance(self.refuse_above, "refuse_above")
            if self.audit is None:
                raise ValueError(
                    f"ImplicitHyperGradient got refuse_above={self.refuse_above!r} and audit=None, but it is "
                    "the audit that bounds the error: give it an rfho.hyper_gradients.Audit()"
                )

    def reaches_start(self, problem: AbstractMoment) -> bool:
        """What moves s_0 does not move where training ends; `Stationary` says so in words of its own."""
        return isinstance(self.condition, Stationary)

    def cost(self, parts: Parts) -> Forecast:
        """T steps, and as many products as solver and audit may take: an upper bound."""

        def product(state: State, q: PyTree) -> PyTree:
            system = self.condition.system(parts.problem, parts.hyper, state)
            return system.operator.apply(q), system.cross(q)

        unknowns = self.condition.unknowns(parts.reading.by_state)
        of_solver = min(self.solver.most_products, tree.size(unknowns))
        of_audit = 0 if self.audit is None else math.ceil(3.5 * self.audit.products)
        vectors = 6 if self.audit is None else 10
        return parts.of_products(
            product,
            unknowns,
            count=of_solver + of_audit,
            vectors=vectors,
            steps=parts.problem.horizon,
        )

    def init(self, problem: AbstractMoment, hyper: Hyper) -> Settled | None:
        """Training and solve at their start, once the condition is known to apply.

        Raises:
            TypeError, ValueError: it does not; see `rfho.Stationary` and `rfho.FixedPoint`.
        """
        self.condition.check(problem, hyper)
        return self._start(problem, hyper) if self.warm_start else None

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: Settled | None
    ) -> tuple[Estimate, Settled | None]:
        """Train, solve, look."""
        begin = self._start(problem, hyper) if carry is None else carry
        state, steps = settled(
            self.condition,
            problem.later(begin.t),
            hyper,
            state=begin.state,
            tolerance=None
            if self.inner_tolerance is None
            else at_step(self.inner_tolerance, problem.k),
        )
        system = self.condition.system(problem, hyper, state)
        reading = problem.read(state, hyper)
        further = self._further(problem, hyper, state=state, system=system)

        def one(seed: _Seed, start: PyTree, seed_there: _Seed | None) -> _Answer:
            tolerance = at_step(self.tolerance, problem.k)
            found = self.solver.solve(system.operator, seed.by_unknowns, start, tolerance=tolerance)
            return self._answer(system, seed, found, further=further, seed_there=seed_there)

        seed_there = None if further is None else self._seed(further.reading)
        one = jax.vmap(one) if problem.several_objectives else one
        answer = one(self._seed(reading), begin.adjoint, seed_there)
        # Without symmetry, qᵀM q < 0 proves nothing about a contraction.
        tells = system.symmetric or self.solver.assumes().definite
        stats = _statistics(answer, system, further, tells=tells)
        hypergradient = select(problem, hyper, answer.hypergradient)
        aux = aux_of(problem, state, stats)
        after = Settled(state, begin.t + steps, answer.adjoint)
        estimate = Estimate(problem.values(reading.value), hypergradient, aux)
        return estimate, after if self.warm_start else None

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: Settled | None
    ) -> tuple[PyTree, Params]:
        """f(λ) and w after T more steps from where training stands."""
        if carry is None:
            return evaluated(problem, hyper)
        state = roll(problem.later(carry.t), hyper, carry.state, span=Span(0, problem.horizon))
        params = problem.dynamics.output(state)
        return problem.evaluate(params, hyper), params

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""

    def complaint(self, stats: dict[str, float]) -> HyperGradientError | None:
        """What makes the answer useless: an assumption of the solver that does not hold, a solve that failed."""
        return complaint_about(self.solver, stats, self.refuse_above)

    def _start(self, problem: AbstractMoment, hyper: Hyper) -> Settled:
        state = problem.init(hyper)
        shapes = jax.eval_shape(lambda: self._seed(problem.read(state, hyper)).by_unknowns)
        adjoint = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return Settled(state, jnp.zeros((), jnp.int32), adjoint)

    def _seed(self, reading: Reading) -> "_Seed":
        return _Seed(self.condition.unknowns(reading.by_state), reading.by_hyper)

    def _further(
        self, problem: AbstractMoment, hyper: Hyper, *, state: State, system: System
    ) -> Further | None:
        if self.audit is None:
            return None
        rate = self.solver.assumes().contraction
        return self.audit.further(
            self.condition, problem, hyper, state=state, system=system, contraction=rate
        )

    def _answer(
        self,
        system: System,
        seed: "_Seed",
        found: Solve,
        *,
        further: Further | None,
        seed_there: "_Seed | None",
    ) -> "_Answer":
        q = found.solution
        hypergradient = tree.subtract(seed.by_hyper, system.cross(q))
        if self.audit is None or further is None or seed_there is None:
            return _Answer(hypergradient, q, found, None)
        verdict = self.audit.verdict(
            further,
            hypergradient,
            q,
            residual=tree.subtract(seed.by_unknowns, system.operator.apply(q)),
            by_unknowns=seed_there.by_unknowns,
            by_hyper=seed_there.by_hyper,
        )
        return _Answer(hypergradient, q, found, verdict)


class _Seed(NamedTuple):
    """The derivatives of one objective: v = ∂_wE, and ∂_λE."""

    by_unknowns: PyTree
    by_hyper: Hyper


class _Answer(NamedTuple):
    """What one objective's solve gave."""

    hypergradient: Hyper
    adjoint: PyTree
    found: Solve
    verdict: Inaccuracy | None


def _statistics(
    answer: _Answer, system: System, further: Further | None, *, tells: bool
) -> dict[str, Scalar]:
    """Of several objectives the worst; curvatures that the solver met only where they tell anything."""
    found, verdict = answer.found, answer.verdict
    stats = {
        "residual": jnp.max(found.residual),
        "stationarity": tree.norm(system.slope),
        "products": jnp.sum(found.products),
        "curvature": jnp.min(jnp.where(tells, found.curvature, jnp.inf)),
    }
    if further is None or verdict is None:
        return stats
    curvature = further.stats["curvature"]
    curvature = jnp.minimum(curvature, stats["curvature"]) if system.symmetric else curvature
    audited = {
        "curvature": curvature,
        "products": stats["products"] + further.products + jnp.sum(verdict.products),
        "error": jnp.max(verdict.error),
        "error_bound": jnp.max(verdict.error_bound),
        "relative_error": jnp.max(verdict.relative_error),
        "relative_error_bound": jnp.max(verdict.relative_error_bound),
        "excess": jnp.max(verdict.excess),
    }
    return stats | further.stats | audited
