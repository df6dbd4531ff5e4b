"""Are the second derivatives of the inner loss those of its gradient? Finite differences decide.

A hypergradient needs ∇²L, and some layers get it wrong without a word: one that stops the gradient
of a mean has the right gradient and the wrong Hessian; a hand-written vjp may have no second
derivative to speak of. For a random v, and u in one leaf of (w, λ) at a time,

    u · d/dε ∇_(w,λ) L(w + ε v, λ) |_ε=0     and     d/dε v · ∇_w L((w, λ) + ε u) |_ε=0

are compared. The left side is what the way back of `Descent` computes, the right side needs nothing
but gradients. They differ where a derivative rule is wrong, and where ∇_w L is the gradient of nothing.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho import _tree as tree
from rfho.checks.finite_differences import (
    Verdict,
    balanced_direction,
    derivative,
    judged,
    rounding_of,
)
from rfho.dynamics import AbstractDynamics, Descent
from rfho.problem.moment import AbstractMoment
from rfho.problem.tasks import TaskDynamics
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar


class SecondOrder(NamedTuple):
    """One block of second derivatives of the inner loss, v·∇²L u with u in a single leaf.

    Attributes:
        path: the leaf of u, as ``params["w"]`` or ``hyper["l2"]``.
        by_derivative: as the way back computes it.
        by_differences: by finite differences of the gradient.
        error: the error bar of ``by_differences``.
        verdict: the one against the other.
    """

    path: str
    by_derivative: float
    by_differences: float
    error: float
    verdict: Verdict


def second_order(problem: AbstractMoment, hyper: Hyper, key: Array) -> tuple[SecondOrder, ...]:
    """One finding for each leaf of parameters and λ; none unless the dynamics is a `Descent`.

    Taken at the first batch, somewhat off the initial parameters, since a symmetric start may hide
    a fault. Of many tasks the first is looked at.
    """
    dynamics, params, batch = _one_task(problem, hyper)
    if not isinstance(dynamics, Descent):
        return ()
    off, for_v, for_u = jax.random.split(key, 3)
    params = jax.tree.map(lambda w, d: w + 0.1 * d, params, balanced_direction(params, off))
    inner = _Inner(problem, dynamics, batch, balanced_direction(params, for_v))
    point = _Point(params, hyper)
    directions = _one_leaf_each(balanced_direction(point, for_u))
    pulled = inner.pulled_back(point)
    claims = [float(tree.dot(pulled, u)) for u in directions]
    return tuple(
        _finding(inner, point, u, claim=claim, scale=max(map(abs, claims)))
        for u, claim in zip(directions, claims, strict=True)
    )


class _Point(NamedTuple):
    """What L is a function of."""

    params: Params
    hyper: Hyper


class _Inner(eqx.Module):
    """The inner loss on one batch, and the direction v."""

    problem: AbstractMoment
    dynamics: Descent
    batch: Batch
    v: Params

    @eqx.filter_jit
    def slope(self, point: _Point, u: _Point, step: Array) -> Scalar:
        """The slope v · ∇_w L((w, λ) + ε u)."""
        params, hyper = jax.tree.map(lambda x, d: x + step.astype(x.dtype) * d, point, u)
        return tree.dot(jax.grad(self._loss)(params, hyper), self.v)

    @eqx.filter_jit
    def pulled_back(self, point: _Point) -> _Point:
        """d/dε ∇_(w,λ) L(w + ε v, λ)."""
        gradient = lambda w: jax.grad(self._loss, argnums=(0, 1))(w, point.hyper)  # noqa: E731
        _, pulled = jax.jvp(gradient, (point.params,), (self.v,))
        return _Point(*pulled)

    def _loss(self, params: Params, hyper: Hyper) -> Scalar:
        return self.dynamics.loss(params, self.problem.whole(hyper), self.batch)


def _finding(inner: _Inner, point: _Point, u: _Point, *, claim: float, scale: float) -> SecondOrder:
    rounding = rounding_of(point)
    found = derivative(lambda h: float(inner.slope(point, u, jnp.asarray(h))), rounding)
    verdict = judged(claim, found, scale, rounding=rounding)
    return SecondOrder(_path_of(u), claim, found.value, found.error, verdict)


def _one_leaf_each(direction: _Point) -> list[_Point]:
    """The direction's parts, each zero but for one leaf."""
    leaves, structure = jax.tree.flatten(direction)
    return [
        jax.tree.unflatten(
            structure, [leaf if i == j else jnp.zeros_like(leaf) for j, leaf in enumerate(leaves)]
        )
        for i in range(len(leaves))
    ]


def _path_of(direction: _Point) -> str:
    for path, leaf in jax.tree_util.tree_leaves_with_path(direction):
        if jnp.any(leaf != 0):
            return tree.path_of(path[1:], path[0].name)
    return "params"


def _one_task(problem: AbstractMoment, hyper: Hyper) -> tuple[AbstractDynamics, Params, Batch]:
    dynamics, batch = problem.dynamics, problem.train_batch(0)
    params: PyTree = dynamics.output(problem.init(hyper))
    if not isinstance(dynamics, TaskDynamics):
        return dynamics, params, batch
    first: Any = lambda leaf: leaf[0]  # noqa: E731
    return dynamics.single, jax.tree.map(first, params), jax.tree.map(first, batch)
