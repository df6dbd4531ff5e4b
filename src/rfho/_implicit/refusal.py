"""When an implicit hypergradient is refused, and the sentence that says so.

Each check compares what a solver takes for granted with what was measured; the order matters, as
the first explains the others.
"""

import math

from rfho.errors import HyperGradientError, Result
from rfho.solvers import AbstractSolver

ASYMMETRIC = 1e-2
"""Asymmetry above which a matrix is no Hessian; rounding in float32 reaches about 1e-7 √n."""

UNSOLVED = 0.1
"""Residual above which a series that seems to diverge is taken to do so, and a singular system to
have no solution: below it there is an answer, whose error the audit bounds."""


def complaint_about(
    solver: AbstractSolver, stats: dict[str, float], refuse_above: float | None
) -> HyperGradientError | None:
    """The error to be raised about these statistics of an estimate, or None."""
    name, assumes = type(solver).__name__, solver.assumes()
    residual, curvature = stats["residual"], stats["curvature"]
    bad = not residual <= UNSOLVED
    if assumes.symmetric and stats.get("asymmetry", 0.0) > ASYMMETRIC:
        return HyperGradientError(
            Result.NOT_SYMMETRIC,
            f"{name} needs a symmetric matrix, but |u·Mv - v·Mu| is {stats['asymmetry']:.2g} of what it is for "
            "unrelated numbers: take rfho.solvers.GMRES() or rfho.solvers.NormalEquations(); if the matrix is the "
            "Hessian of a loss, a custom derivative in it is wrong",
        )
    if (assumes.definite or assumes.contraction is not None) and curvature < 0:
        return HyperGradientError(
            Result.NEGATIVE_CURVATURE,
            f"{name} needs a positive definite matrix, but a curvature of {curvature:.3g} was seen: training stands "
            "at a saddle or has not ended. Train longer, add a penalty, or take rfho.solvers.GMRES()",
        )
    if assumes.definite and curvature == 0 and bad:
        return HyperGradientError(
            Result.SINGULAR,
            f"{name} is left with a relative residual of {residual:.2g}, and the smallest curvature is 0 to "
            f"rounding{_beside(stats)}: either the loss is flat along a direction in which the objective is not, "
            "and needs a penalty; or its curvatures lie too far apart for these numbers, and it needs parameters "
            "that are scaled (by the root of their penalties, by the size of their features), penalties bounded "
            "from below (rfho.LogBox), or float64. rfho.solvers.Nystrom(rank, damping) takes either",
        )
    radius = stats.get("spectral_radius", 0.0)
    if assumes.contraction is not None and radius >= 1 and bad:
        return HyperGradientError(
            Result.DIVERGING,
            f"{name} with rate={assumes.contraction:g} diverges: the spectral radius of I - rate * M is "
            f"{radius:.4g}, but it must be below 1. Lower the rate, or take rfho.solvers.CG()",
        )
    if not math.isfinite(residual):
        return HyperGradientError(
            Result.UNSOLVED, f"{name} broke down: the relative residual is {residual}"
        )
    if not stats.get("excess", 0.0) <= 1:
        return HyperGradientError(
            Result.INACCURATE,
            f"the estimated error of the hypergradient, {stats['error']:.3g}, is {stats['excess']:.2g} times the "
            "length that no hypergradient can exceed where one more Newton step leads: training is nowhere near a "
            f"minimum (gradient of the condition {stats['stationarity']:.2g}). Train longer or at a lower rate",
        )
    if refuse_above is not None and not stats["relative_error_bound"] <= refuse_above:
        return HyperGradientError(Result.INACCURATE, _inaccurate(name, stats, refuse_above))
    return None


def _beside(stats: dict[str, float]) -> str:
    """What the smallest curvature is lost beside, where the audit has seen it."""
    return f" beside the largest, {stats['largest']:.3g}" if "largest" in stats else ""


def _inaccurate(name: str, stats: dict[str, float], refuse_above: float) -> str:
    bound = stats["relative_error_bound"]
    about = (
        f"the hypergradient is about {100 * stats['relative_error']:.0f} % wrong (relative residual "
        f"{stats['residual']:.2g} by {name}, gradient of the condition {stats['stationarity']:.2g})"
    )
    if math.isinf(bound):
        return (
            f"{about}, and there is no bound: training is too far from a minimum for one Newton step, or the "
            "smallest curvature is not known. Train longer, or give rfho.hyper_gradients.Audit more products or "
            "the curvature of a penalty"
        )
    return (
        f"{about} and may be {100 * bound:.0f} %, but refuse_above={refuse_above:g}: train longer, or give the "
        "solver more products or another kind"
    )
