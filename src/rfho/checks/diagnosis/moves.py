"""What the way of λ itself tells: an outer step that does not fit the size of a hyperparameter.

Adam moves every leaf by about its rate, whatever the leaf's size: at its usual 0.01 a learning rate of 0.001
is negative after one step, and a penalty of 10 has not moved. Only scalars are looked at, for whom a sign
and a size mean something.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Where
from rfho.domains import AbstractDomain, Reals
from rfho.domains.space import Space
from rfho.typing import Hyper

_FAR = 10.0
"""A step is too long for a leaf that it moves by more than so many times its size."""

_SETTLES = 3
"""Outer steps from which on a bound is no passing visit."""


def move_findings(
    space: Space, start: Hyper, before: Hyper, *, after: Hyper, k: int
) -> list[Finding]:
    """What outer step ``k`` did to the scalars among the learned leaves, all on the host.

    Args:
        space: their domains.
        start: λ_0.
        before: λ_{k-1}.
        after: λ_k.
        k: the number of the step.
    """
    domains = jax.tree.leaves(space.domains, is_leaf=_is_domain)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(after),
        jax.tree.leaves(before),
        jax.tree.leaves(start),
        domains,
        strict=True,
    )
    found: list[Finding] = []
    for (path, new), old, first, domain in leaves:
        if np.ndim(new) == 0 and np.isfinite(new):
            where = tree.path_of(path, "hyper")
            found += _of_leaf(where, domain, (float(first), float(old), float(new)), k)
    return found


def _of_leaf(
    where: str, domain: AbstractDomain, moved: tuple[float, float, float], k: int
) -> list[Finding]:
    first, old, new = moved
    if isinstance(domain, Reals) and first > 0 and old > 0 > new:
        message = (
            f"outer step {k} took {where} from {old:.3g} to {new:.3g}, below zero, and no domain forbids it: if "
            "it must be positive, give domain=rfho.Positive(), in whose chart a step multiplies"
        )
        return [Finding(Kind.CHANGED_SIGN, Where(leaf=where, step=k), message)]
    if old != 0 and abs(new - old) > _FAR * abs(old):
        message = (
            f"outer step {k} moved {where} from {old:.3g} to {new:.3g}, by {abs(new / old - 1):.3g} times itself: "
            "the outer step does not fit its size. Lower the rate of the outer optimiser, for one leaf with "
            "optax.partition, or give domain=rfho.Positive(), in whose chart a step multiplies"
        )
        return [Finding(Kind.MOVED_FAR, Where(leaf=where, step=k), message)]
    if k >= _SETTLES and first != old == new and _is_on_a_bound(domain, new):
        message = (
            f"{where} sits on {new:.3g}, the bound of its domain {tree.as_code(domain)}, at outer step {k}: "
            "widen the domain, start elsewhere, lower the outer step, or take rfho.Positive(), whose chart has "
            "no bound"
        )
        return [Finding(Kind.ON_ITS_BOUND, Where(leaf=where, step=k), message)]
    return []


def _is_on_a_bound(domain: AbstractDomain, value: float) -> bool:
    """Whether some small move is projected back to where it came from."""
    if isinstance(domain, Reals):
        return False
    small = 1e-3 * max(1.0, abs(value))
    sides = [float(domain.project(jnp.asarray(value + step))) for step in (-small, small)]
    return float(jnp.asarray(value)) in sides


def _is_domain(node: Any) -> bool:
    return isinstance(node, AbstractDomain)
