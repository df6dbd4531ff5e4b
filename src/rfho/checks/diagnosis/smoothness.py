"""Does the hypergradient change smoothly from point to point?

    S_h = Σ_i (|g_i| + |g'_i|) sgn(g_i) sgn(g'_i) / Σ_i (|g_i| + |g'_i|),  g = ∇f(λ - h d),  g' = ∇f(λ + h d),

is 1 where the two point the same way and -1 where they are opposite. It is the metasmoothness of
arXiv 2503.13751 (2025), with hypergradients in the place of differences of trained parameters. A
jump g' - g that stays as large when h is divided by ten is no curvature: it is a kink at λ if either
side is smooth by itself, and roughness everywhere if it is not.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.case import Case
from rfho.typing import Hyper

_LEAST = 0.5  # agreement of signs below which a step along g is a matter of luck
_JUMP = 1e-3  # of the hypergradient's norm


class Smoothness(NamedTuple):
    """The hypergradient on either side of λ.

    Attributes:
        agreement: S_h in [-1, 1]; 1 if the hypergradient is zero.
        jump: ‖g' - g‖ / (‖g'‖ + ‖g‖) at h.
        jump_nearer: the same at h / 10.
        one_sided: how far g' at h is from g' at h / 10, or g from g, relative likewise; the larger.
        leaf: path of the leaf in which g' - g is largest.
    """

    agreement: float
    jump: float
    jump_nearer: float
    one_sided: float
    leaf: str

    @property
    def persists(self) -> bool:
        """Whether looking nearer does not help: no curvature jumps like that."""
        return self.jump_nearer > max(0.5 * self.jump, _JUMP)


def smoothness_of(case: Case, gradient: Callable[[float], Hyper]) -> Smoothness:
    """From four hypergradients, at λ ± h d and λ ± h d / 10 with h = `distance` (ε); inside of the domain."""
    far = distance(case.epsilon)
    centre = far if case.line.one_sided else 0.0
    near = lambda step: _flat(jax.device_get(gradient(centre + step)))  # noqa: E731
    up, down, up_near, down_near = map(near, (far, -far, far / 10, -far / 10))
    jump = np.abs(up_near - down_near)
    return Smoothness(
        agreement=agreement_of(down, up),
        jump=_distance(down, up),
        jump_nearer=_distance(down_near, up_near),
        one_sided=max(_distance(up, up_near), _distance(down, down_near)),
        leaf=_largest(case.hyper, jump),
    )


def distance(epsilon: float) -> float:
    """h = ε^(1/5), the length of a step to a near point."""
    return epsilon**0.2


def smoothness_findings(smoothness: Smoothness) -> list[Finding]:
    """A kink at λ, or roughness around it."""
    persists = smoothness.persists
    where = Where(leaf=smoothness.leaf)
    if persists and smoothness.one_sided < 0.1 * smoothness.jump_nearer:
        message = (
            f"the hypergradient of {smoothness.leaf} jumps by {100 * smoothness.jump_nearer:.2g} % of its norm at "
            "this very point, however near one looks: a max, abs, relu or clip stands exactly at its corner. "
            "The value given there is a convention of JAX; start from another point, or use a smooth function"
        )
        return [Finding(Kind.KINK, where, message, Severity.WARNING)]
    if persists and smoothness.agreement < _LEAST:
        message = (
            f"the signs of two hypergradients near each other agree by {smoothness.agreement:.2f} only (1 is "
            f"perfect, -1 opposite), most in {smoothness.leaf}, and looking nearer does not help: a step along "
            "the hypergradient is a matter of luck. Lower the rate, shorten the horizon, use larger batches or "
            "smoother functions"
        )
        return [Finding(Kind.ROUGH, where, message, Severity.WARNING)]
    return []


def _flat(gradient: Hyper) -> np.ndarray:
    return np.asarray(ravel_pytree(gradient)[0], np.float64)


def agreement_of(one: np.ndarray, other: np.ndarray) -> float:
    """How far the signs of two hypergradients agree, each in a row: 1 if both are zero, NaN if one is not finite."""
    weight = np.abs(one) + np.abs(other)
    total = float(np.sum(weight))
    if not np.isfinite(total) or total == 0:
        return 1.0 if total == 0 else float("nan")
    return float(np.sum(weight * np.sign(one) * np.sign(other)) / total)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    size = np.linalg.norm(one) + np.linalg.norm(other)
    return float(np.linalg.norm(one - other) / size) if size > 0 else 0.0


def _largest(hyper: Hyper, jump: np.ndarray) -> str:
    parts = ravel_pytree(hyper)[1](jnp.asarray(jump))
    leaves = jax.tree_util.tree_leaves_with_path(parts)
    path, _ = max(leaves, key=lambda pair: float(np.linalg.norm(pair[1])))
    return tree.path_of(path, "hyper")
