r"""w*(λ) as a function that can be differentiated, whoever finds it.

Where a solver has found w* with F(w*, λ) = 0, the implicit function theorem says how w* moves,

.. math:: \partial_w F \, \dot w = -\partial_\lambda F \, \dot\lambda

one linear system for each direction, or, transposed, for each objective (arXiv 2105.15183). How w* was found
does not matter: the solver is never differentiated, and may run on the host.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs import trees as tree
from rfho.solvers import CG, AbstractSolver, Operator
from rfho.typing import Hyper, Params, PyTree, Scalar


class Solved(eqx.Module):
    """λ ↦ w*(λ), as `rfho.solution` makes it.

    Attributes:
        condition: F.
        solver: what finds w*.
        linear: what solves the linear systems.
        tolerance: of their relative residual.
        like: the shapes of w* if the solver runs on the host; None if it is traced.
    """

    condition: Callable[[Params, Hyper], PyTree]
    solver: Callable[[Hyper], Params]
    linear: AbstractSolver
    tolerance: float = eqx.field(static=True)
    like: PyTree

    def __call__(self, hyper: Hyper) -> Params:
        """w*(λ)."""
        free, rest = tree.split(jax.tree.map(_as_array, hyper))
        return _found(free, rest=rest, solved=self)

    def distance(self, hyper: Hyper) -> Scalar:
        """How far the solver stopped from w*, by the length of one Newton step, relative to that of w*.

        Derivatives are as wrong as this is large: look at it once, before they are trusted.
        """
        params = self(hyper)
        step = self.linear_solve(params, hyper, self.condition(params, hyper))
        size = tree.norm(params)
        return tree.norm(step) / jnp.where(size > 0, size, 1)

    def linear_solve(self, params: Params, hyper: Hyper, right: PyTree) -> PyTree:
        """(∂_wF)⁻¹ v, itself differentiable."""
        of_params = lambda w: self.condition(w, hyper)  # noqa: E731
        _, push = jax.linearize(of_params, params)
        symmetric = self.linear.assumes().symmetric

        def solve(apply: Callable[[PyTree], PyTree], right: PyTree) -> PyTree:
            transpose = apply if symmetric else lambda q: jax.linear_transpose(apply, params)(q)[0]
            start = jax.tree.map(jnp.zeros_like, right)
            operator = Operator(apply, transpose)
            return self.linear.solve(operator, right, start, tolerance=self.tolerance).solution

        return jax.lax.custom_linear_solve(push, right, solve, solve, symmetric=symmetric)


def solution(
    condition: Callable[[Params, Hyper], PyTree],
    solver: Callable[[Hyper], Params],
    *,
    linear: AbstractSolver = CG(),
    tolerance: float = 1e-6,
    like: PyTree = None,
) -> Solved:
    """The solution of an inner problem as a differentiable function of λ, to compose with anything.

    Use it where the inner problem is solved by a library of its own (L-BFGS, Newton, Anderson, SciPy), or is one
    part of a larger computation. `rfho.ImplicitHyperGradient` is for training that rfho carries out, and audits
    its answer.

    Args:
        condition: F, ``(w, hyper) -> `` a pytree like w that is 0 at w*: ``jax.grad(loss)`` for a minimum,
            ``lambda w, hyper: w - step(w, hyper)`` for a fixed point. Whatever is to be differentiated by must
            be in ``hyper``.
        solver: ``hyper -> w*``. Never differentiated, so that it may hold loops of any kind.
        linear: how linear systems are solved. `rfho.solvers.CG` takes ∂_wF for symmetric and positive definite,
            as a Hessian at a minimum is; otherwise take `rfho.solvers.GMRES`.
        tolerance: of the relative residual of the linear solves.
        like: arrays, or `jax.ShapeDtypeStruct`, in the structure of w*, for a solver that runs on the host: it
            then gets ``hyper`` as NumPy arrays. None for a solver that JAX traces.

    Returns:
        A function of λ, for `jax.jvp`, `jax.grad`, `jax.jit`, `jax.vmap` and derivatives of any order; its method
        ``distance(hyper)`` says how far from w* the solver stopped.

    Raises:
        TypeError: an argument is not of its kind.

    Cost:
        The solver once, and for each direction or objective one linear solve, with a product of ∂_wF a step.

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> def ridge(w, l2):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * l2 * w**2
        >>> minimiser = rfho.solution(jax.grad(ridge), solver=lambda l2: 1 / (1 + l2))
        >>> float(minimiser(1.0)), round(float(jax.grad(minimiser)(1.0)), 4)
        (0.5, -0.25)

    References:
        Blondel et al., "Efficient and modular implicit differentiation", arXiv 2105.15183.
    """
    for name, function in (("condition", condition), ("solver", solver)):
        if not callable(function):
            raise TypeError(f"solution got {name}={function!r}, but it must be a function")
    if not isinstance(linear, AbstractSolver):
        raise TypeError(f"solution got linear={linear!r}, but it must be one of rfho.solvers")
    return Solved(condition, solver, linear, tolerance, like)


@eqx.filter_custom_jvp
def _found(free: Hyper, *, rest: Hyper, solved: Solved) -> Params:
    hyper = jax.lax.stop_gradient(eqx.combine(free, rest))
    if solved.like is None:
        return jax.lax.stop_gradient(solved.solver(hyper))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), solved.like)

    def on_the_host(hyper: Hyper) -> Params:
        given = jax.tree.map(np.asarray, hyper)
        cast = lambda leaf, shape: np.asarray(leaf, shape.dtype).reshape(shape.shape)  # noqa: E731
        return jax.tree.map(cast, solved.solver(given), shapes)

    return jax.pure_callback(on_the_host, shapes, hyper, vmap_method="sequential")


@_found.def_jvp
def _moved(
    primals: tuple[Hyper], tangents: tuple[Hyper], *, rest: Hyper, solved: Solved
) -> tuple[Params, Params]:
    (free,), (pushed,) = primals, tangents
    zeros = jax.tree.map(jnp.zeros_like, free)
    pushed = jax.tree.map(
        lambda tangent, zero: zero if tangent is None else tangent,
        pushed,
        zeros,
        is_leaf=tree.is_none,
    )
    params = _found(free, rest=rest, solved=solved)
    condition = lambda free: solved.condition(params, eqx.combine(free, rest))  # noqa: E731
    _, by_hyper = jax.jvp(condition, (free,), (pushed,))
    hyper = eqx.combine(free, rest)
    return params, solved.linear_solve(params, hyper, tree.scale(-1.0, by_hyper))


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, float) else leaf
