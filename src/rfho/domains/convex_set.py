"""Any closed convex set, through a convex solver.

P(x) = argmin_p {‖p - x‖² : p in D} is handed to CVXPY (arXiv 1603.00943) with the
constraints that describe D. The solver runs
on the host, called back from the compiled program: milliseconds for small leaves, a second
for thousands of entries. Where one of the other domains fits, it is far faster, and exact.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rfho.domains.base import AbstractDomain, not_finite


def clarabel(problem: Any) -> None:
    """Solves a projection by the interior-point solver Clarabel, to a gap of 1e-10.

    The squared distance is strongly convex, so the point is then right to within about
    1e-5 · max(1, ‖p - x‖); 1e-8, the solver's own choice, would allow 1e-4. Much less than
    1e-10 is beyond its reach on sets with curved boundaries.
    """
    problem.solve(
        solver="CLARABEL",
        canon_backend="SCIPY",  # The one that takes any number of axes.
        tol_gap_abs=1e-10,
        tol_gap_rel=1e-10,
        tol_feas=1e-10,
    )


class ConvexSet(AbstractDomain):
    """The arrays that satisfy a list of CVXPY constraints.

    The projection is good to the tolerance of the solver, works under `jax.jit`,
    `jax.lax.scan` and `jax.vmap` (one solve after another), and offers no derivative: an
    outer step needs none. Needs the extra ``rfho[convex]``.

    Attributes:
        constraints: function from a ``cvxpy.Variable`` of the leaf's shape to a sequence of
            convex constraints on it.
        solve: function that solves a ``cvxpy.Problem`` in place; by default with `clarabel`.

    Raises:
        ImportError: on first use, if cvxpy is not installed.

    Example:
        >>> import cvxpy, jax.numpy as jnp
        >>> from rfho import domains
        >>> disc = domains.ConvexSet(lambda v: [cvxpy.norm(v) <= 1.0])
        >>> disc.project(jnp.array([3.0, 4.0])).round(3).tolist()
        [0.6000000238418579, 0.800000011920929]
    """

    constraints: Callable[[Any], Sequence[Any]] = eqx.field(static=True)
    solve: Callable[[Any], object] = eqx.field(static=True, default=clarabel)

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest point of the set, found on the host.

        Raises:
            ValueError: on the host, if the solver reports no optimum, as for an empty set.
                Under `jax.jit` JAX wraps it in its own run-time error.
            NotImplementedError: if differentiated.
        """

        def on_host(values: Any) -> np.ndarray:
            return self._nearest(np.asarray(values)).astype(x.dtype)

        @jax.custom_jvp
        def nearest(x: Array) -> Array:
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(on_host, shape, x, vmap_method="sequential")

        nearest.defjvp(_refuse_derivative)
        return nearest(x)

    def contains(self, x: Float[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether no entry is further than ``tol`` from the projection.

        The solver is good to about 1e-5 itself: expect nothing from a smaller ``tol``.
        """
        return jnp.all(jnp.abs(x - self.project(x)) <= tol)

    def objection(self, x: Any) -> str | None:
        """Objects to a leaf that cannot be projected; tries it, which costs one solve."""
        if objection := not_finite(x):
            return objection
        try:
            self._nearest(np.asarray(x))
        except ValueError as error:
            return f"has shape {np.shape(x)}, and {error}"
        return None

    def _nearest(self, x: np.ndarray) -> np.ndarray:
        cvxpy = _cvxpy()
        point = cvxpy.Variable(x.shape)
        distance = cvxpy.sum_squares(point - x.astype(np.float64))
        problem = cvxpy.Problem(cvxpy.Minimize(distance), list(self.constraints(point)))
        if not problem.is_dcp():
            raise ValueError(
                "the constraints of ConvexSet do not follow CVXPY's rules for convex problems: "
                "write each as convex <= concave, or affine == affine"
            )
        self.solve(problem)
        if problem.status != cvxpy.OPTIMAL:
            raise ValueError(
                f"the projection onto ConvexSet ended as '{problem.status}' rather than "
                "'optimal': see whether the constraints contradict each other, or give ConvexSet "
                "another `solve`"
            )
        return np.asarray(point.value).reshape(x.shape)


def _refuse_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    raise NotImplementedError(
        "the projection onto ConvexSet was differentiated, but a solver on the host offers no "
        "derivative: differentiate up to the projection only, or use a domain with a closed "
        "form, such as Box, Simplex or CappedL1"
    )


def _cvxpy() -> Any:
    try:
        return importlib.import_module("cvxpy")
    except ModuleNotFoundError as error:
        raise ImportError(
            "ConvexSet projects through cvxpy, which is not installed: `pip install 'rfho[convex]'`"
        ) from error
