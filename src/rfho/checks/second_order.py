"""Are the second derivatives of the inner loss those of its gradient? Finite differences decide.

A hypergradient needs ∇²L, and some layers get it wrong without a word: one that stops the gradient
of a mean has the right gradient and the wrong Hessian; a hand-written vjp may have no second
derivative to speak of. For a random v, and u in one leaf of (w, λ) at a time,

    u · d/dε ∇_(w,λ) L(w + ε v, λ) |_ε=0     and     d/dε v · ∇_w L((w, λ) + ε u) |_ε=0

are compared. The left side is what the way back of `Descent` computes, the right side needs nothing
but gradients. They differ where a derivative rule is wrong, and where ∇_w L is the gradient of nothing.
"""

from typing import Any

import equinox as eqx
import jax
from jax import Array

from rfho._programs import trees as tree
from rfho.checks.line import unit_normal
from rfho.checks.slopes import Slope, slopes_of
from rfho.domains.space import Space
from rfho.dynamics import AbstractDescent, AbstractDynamics
from rfho.dynamics.variables import like, parted
from rfho.problem.moment import AbstractMoment
from rfho.problem.tasks import TaskDynamics
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar


def second_order(
    problem: AbstractMoment, hyper: Hyper, space: Space, *, key: Array
) -> tuple[Slope, ...]:
    """v·∇²L u for u in each leaf of parameters and λ; none unless the dynamics descend a loss.

    Taken at the first batch, somewhat off the initial parameters, since a symmetric start may hide
    a fault. Of many tasks the first is looked at.
    """
    dynamics, start, batch = _one_task(problem, hyper)
    if not isinstance(dynamics, AbstractDescent):
        return ()
    off, for_v, for_u = jax.random.split(key, 3)
    params = parted(start).params
    params = jax.tree.map(lambda w, d: w + 0.1 * d, params, unit_normal(params, off))
    slope = _Slope(problem, dynamics, start, batch, unit_normal(params, for_v))
    point = {"params": params, "hyper": hyper}
    return slopes_of(slope, point, slope.pulled_back(params, hyper), space=space, key=for_u)


class _Slope(eqx.Module):
    """The slope v · ∇_w L of the inner loss on one batch."""

    problem: AbstractMoment
    dynamics: AbstractDescent
    start: Params
    batch: Batch
    v: Params

    def __call__(self, point: PyTree) -> Scalar:
        return tree.dot(jax.grad(self._loss)(point["params"], point["hyper"]), self.v)

    @eqx.filter_jit
    def pulled_back(self, params: Params, hyper: Hyper) -> PyTree:
        """d/dε ∇_(w,λ) L(w + ε v, λ)."""
        gradient = lambda w: jax.grad(self._loss, argnums=(0, 1))(w, hyper)  # noqa: E731
        _, (by_params, by_hyper) = jax.jvp(gradient, (params,), (self.v,))
        return {"params": by_params, "hyper": by_hyper}

    def _loss(self, params: Params, hyper: Hyper) -> Scalar:
        params = like(self.start, params, parted(self.start).carried)
        return self.dynamics.loss(params, self.problem.whole(hyper), self.batch)


def _one_task(problem: AbstractMoment, hyper: Hyper) -> tuple[AbstractDynamics, Params, Batch]:
    dynamics, batch = problem.dynamics, problem.train_batch(0)
    state: PyTree = problem.init(hyper)
    params = getattr(state, "params", state)
    if not isinstance(dynamics, TaskDynamics):
        return dynamics, params, batch
    first: Any = lambda leaf: leaf[0]  # noqa: E731
    return dynamics.single, jax.tree.map(first, params), jax.tree.map(first, batch)
