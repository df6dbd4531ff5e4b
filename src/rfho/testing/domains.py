"""The promises of a domain: a closed convex set with its projection, and perhaps a chart."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rfho.checks import derivative
from rfho.domains import AbstractDomain
from rfho.testing.base import (
    applies,
    dot,
    kept,
    need_double_precision,
    require,
    require_alike,
    require_close,
    require_equal,
    require_finite,
)


class DomainTrial(NamedTuple):
    """A domain under test, and points to try it at.

    Attributes:
        domain: under test.
        points: shape (count, *shape), near the set and far from it.
        inside: their projections.
        project, contains: compiled.
        tolerance: how exact projections are.
        differentiable: whether they have derivatives.
        example: the leaf that was given.
    """

    domain: AbstractDomain
    points: Array
    inside: Array
    project: Any
    contains: Any
    tolerance: float
    differentiable: bool
    example: Array


def check_domain(
    domain: AbstractDomain,
    example: Any,
    *,
    tolerance: float = 1e-9,
    differentiable: bool = True,
    seed: int = 0,
) -> tuple[str, ...]:
    """Checks that a domain keeps every promise of `DOMAIN_PROMISES` that applies to it.

    Args:
        domain: yours.
        example: a leaf that it can hold: an array of the right shape with sensible values.
        tolerance: how exact projections are; a set behind a solver is right to its tolerance.
        differentiable: whether projections are claimed to have derivatives.
        seed: of the points that are drawn around the example.

    Returns:
        The names of the promises that were kept.

    Raises:
        ConformanceError: some were broken; the message lists all of them.
        RuntimeError: JAX is not set to double precision.

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> from rfho.testing import check_domain
        >>> jax.config.update("jax_enable_x64", True)
        >>> "projection_is_idempotent" in check_domain(rfho.UnitInterval(), jnp.array([0.2, 0.7]))
        True
    """
    need_double_precision()
    example = jnp.asarray(example)
    rng = np.random.default_rng(seed)
    near = rng.normal(size=(4, *example.shape))
    points = example + jnp.asarray(np.concatenate([near, 10 * near[:2]]))
    project = eqx.filter_jit(domain.project)
    inside = jnp.stack([project(point) for point in points])
    contains = eqx.filter_jit(domain.contains)
    trial = DomainTrial(
        domain, points, inside, project, contains, tolerance, differentiable, example
    )
    return kept(DOMAIN_PROMISES, trial, type(domain).__name__)


def projection_keeps_shape_and_dtype(trial: DomainTrial) -> None:
    """P(x) is an array like x."""
    require_alike(trial.inside[0], trial.points[0], what="projection")


def projection_keeps_single_precision(trial: DomainTrial) -> None:
    """P(x) is float32 if x is."""
    single = trial.points[0].astype(jnp.float32)
    found = trial.project(single)
    require_alike(found, single, what="projection of a float32 leaf")
    tolerance = max(1e-4, 10 * trial.tolerance)
    require_close(found.astype(jnp.float64), trial.inside[0], tolerance, what="projection")


def projection_is_finite(trial: DomainTrial) -> None:
    """Wherever x is finite P(x) is."""
    require_finite(trial.inside, what="projection")


def projection_is_in_the_set(trial: DomainTrial) -> None:
    """`contains` agrees that P(x) is inside."""
    for point, nearest in zip(trial.points, trial.inside, strict=True):
        found = trial.contains(nearest, max(1e-6, 10 * trial.tolerance))
        require(found, f"project({point}) is {nearest}, which the set does not contain")


def projection_is_idempotent(trial: DomainTrial) -> None:
    """P(P(x)) = P(x)."""
    for nearest in trial.inside:
        require_close(trial.project(nearest), nearest, 10 * trial.tolerance, what="projection")


def projection_is_non_expansive(trial: DomainTrial) -> None:
    """‖P(x) - P(y)‖ <= ‖x - y‖."""
    for i in range(1, len(trial.points)):
        before = float(jnp.linalg.norm((trial.points[i] - trial.points[0]).ravel()))
        after = float(jnp.linalg.norm((trial.inside[i] - trial.inside[0]).ravel()))
        require(
            after <= before + 10 * trial.tolerance,
            f"two points at distance {before} have projections at distance {after}",
        )


def projection_is_the_nearest_point(trial: DomainTrial) -> None:
    """⟨x - P(x), q - P(x)⟩ <= 0 for every q of the set."""
    for point, nearest in zip(trial.points, trial.inside, strict=True):
        for other in trial.inside:
            product = dot(point - nearest, other - nearest)
            room = 10 * trial.tolerance * (1 + float(jnp.sum(jnp.abs(point))))
            require(
                product <= room,
                f"{other} is in the set and nearer to {point} than its projection {nearest}",
            )


def projection_leaves_points_of_the_set_alone(trial: DomainTrial) -> None:
    """P(x) = x if `contains` says that x is inside."""
    for point, nearest in zip(trial.points, trial.inside, strict=True):
        if trial.contains(point, 0.0):
            require_close(nearest, point, 10 * trial.tolerance, what="projection")


def projection_is_pure(trial: DomainTrial) -> None:
    """Two calls give the same bits."""
    require_equal(trial.project(trial.points[1]), trial.inside[1], what="projection")


def projection_is_the_same_uncompiled(trial: DomainTrial) -> None:
    """Compilation changes nothing but rounding."""
    found = trial.domain.project(trial.points[0])
    require_close(found, trial.inside[0], 10 * trial.tolerance, what="projection without jit")


def projection_works_under_vmap(trial: DomainTrial) -> None:
    """A batch is projected one by one."""
    found = jax.vmap(trial.domain.project)(trial.points)
    require_close(found, trial.inside, 10 * trial.tolerance, what="projection under vmap")


def projection_does_not_hide_a_nan(trial: DomainTrial) -> None:
    """A NaN in x is a NaN in P(x)."""
    applies(trial.differentiable)
    found = trial.project(jnp.full_like(trial.example, jnp.nan))
    require(jnp.any(jnp.isnan(found)), f"the projection of NaN is {found}")


def projection_has_transposed_derivatives(trial: DomainTrial) -> None:
    """⟨w, J v⟩ by forward mode is ⟨Jᵀ w, v⟩ by reverse mode."""
    applies(trial.differentiable)
    point, v, w = trial.points[0], trial.points[1], trial.points[2]
    _, tangent = jax.jvp(trial.project, (point,), (v,))
    (cotangent,) = jax.vjp(trial.project, point)[1](w)
    require_finite((tangent, cotangent), what="derivative of the projection")
    forward, reverse = dot(w, tangent), dot(cotangent, v)
    require_close(jnp.asarray(forward), jnp.asarray(reverse), 1e-8, what="forward mode")


def projection_has_the_derivative_of_differences(trial: DomainTrial) -> None:
    """J v is the slope of P(x + h v)."""
    applies(trial.differentiable)
    point, v = trial.points[0], trial.points[1] - trial.points[0]
    _, tangent = jax.jvp(trial.project, (point,), (v,))
    # Short steps, so that no kink lies between.
    rounding = float(jnp.finfo(point.dtype).eps)
    found = derivative(lambda h: trial.project(point + h * v), rounding, step=1e-4)
    require_close(tangent, jnp.asarray(found.value), 1e-5, what="derivative of the projection")


def contains_is_one_bool(trial: DomainTrial) -> None:
    """A boolean of shape (), compiled or not."""
    found = trial.domain.contains(trial.example)
    require_alike(jnp.asarray(found), jnp.asarray(True), what="contains")
    require(found == trial.contains(trial.example), "contains differs under jit")


def contains_refuses_what_projection_moves(trial: DomainTrial) -> None:
    """A point that is far from its projection is not inside."""
    for point, nearest in zip(trial.points, trial.inside, strict=True):
        if float(jnp.max(jnp.abs(point - nearest), initial=0)) > 0.01:
            require(not trial.contains(point), f"contains {point}, but projects it to {nearest}")


def contains_refuses_nan(trial: DomainTrial) -> None:
    """NaN is in no set."""
    applies(trial.differentiable)
    require(not trial.contains(jnp.full_like(trial.example, jnp.nan)), "contains an array of NaN")


def unchart_undoes_chart(trial: DomainTrial) -> None:
    """unchart(chart(x)) = x inside."""
    x = trial.project(trial.example)
    found = trial.domain.unchart(trial.domain.chart(x))
    require_close(found, x, 1e-9, what="unchart(chart(x))")


def chart_undoes_unchart(trial: DomainTrial) -> None:
    """chart(unchart(u)) = u near the chart of a point inside."""
    u = trial.domain.chart(trial.project(trial.example)) + 0.01
    require_close(trial.domain.chart(trial.domain.unchart(u)), u, 1e-9, what="chart(unchart(u))")


def chart_has_finite_transposed_derivatives(trial: DomainTrial) -> None:
    """Hypergradients can be pulled back through unchart."""
    u = trial.domain.chart(trial.project(trial.example))
    v, w = jnp.ones_like(u), jnp.cos(jnp.arange(u.size, dtype=u.dtype)).reshape(u.shape)
    _, tangent = jax.jvp(trial.domain.unchart, (u,), (v,))
    (cotangent,) = jax.vjp(trial.domain.unchart, u)[1](w)
    require_finite((tangent, cotangent), what="derivative of unchart")
    forward, reverse = dot(w, tangent), dot(cotangent, v)
    require_close(jnp.asarray(forward), jnp.asarray(reverse), 1e-8, what="forward mode")


def chart_keeps_dtype(trial: DomainTrial) -> None:
    """The chart of a float32 leaf is float32, and back."""
    x = trial.project(trial.example.astype(jnp.float32))
    chart = trial.domain.chart(x)
    require(chart.dtype == jnp.float32, f"the chart of a float32 leaf is {chart.dtype}")
    back = trial.domain.unchart(chart).dtype
    require(back == jnp.float32, f"unchart turns float32 into {back}")


def check_accepts_the_example(trial: DomainTrial) -> None:
    """A leaf that fits is not refused."""
    objection = trial.domain.objection(trial.project(trial.example))
    require(objection is None, f"objects to the example: it {objection}")


def check_names_the_path(trial: DomainTrial) -> None:
    """The error about a bad leaf begins with the leaf's path."""
    path = 'hyper["there"]'
    try:
        trial.domain.check(np.full(trial.example.shape, np.nan), path)
    except ValueError as error:
        require(str(error).startswith(path), f"the error about {path} is: {error}")
    else:
        require(False, "a leaf of NaN is accepted")


DOMAIN_PROMISES = (
    projection_keeps_shape_and_dtype,
    projection_keeps_single_precision,
    projection_is_finite,
    projection_is_in_the_set,
    projection_is_idempotent,
    projection_is_non_expansive,
    projection_is_the_nearest_point,
    projection_leaves_points_of_the_set_alone,
    projection_is_pure,
    projection_is_the_same_uncompiled,
    projection_works_under_vmap,
    projection_does_not_hide_a_nan,
    projection_has_transposed_derivatives,
    projection_has_the_derivative_of_differences,
    contains_is_one_bool,
    contains_refuses_what_projection_moves,
    contains_refuses_nan,
    unchart_undoes_chart,
    chart_undoes_unchart,
    chart_has_finite_transposed_derivatives,
    chart_keeps_dtype,
    check_accepts_the_example,
    check_names_the_path,
)
"""What every domain promises, in the order in which it is tried."""
