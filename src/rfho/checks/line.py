"""A way through λ that stays inside its domain: where finite differences take their values.

    λ(h) = unchart(u + h d),    u = chart(λ),    λ'(0) = ∂unchart(u) d

Inside the domain h may have either sign. At its edge the way leads inwards, from λ to the projection of a
point beyond: domains are convex, so that all of it is inside, but it has one side alone.
"""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._programs import trees as tree
from rfho.domains import AbstractDomain
from rfho.domains.space import Space
from rfho.typing import PyTree

LONGEST = 0.1
"""The longest step that a line is made for: it changes no leaf by more than about a tenth."""

_TOO_SHORT = 0.01  # of what was drawn: little of it is left inside the domain


class Line(eqx.Module):
    """A straight line in the coordinates of a space's chart.

    Attributes:
        space: the domains of the leaves; None where they may be any numbers.
        start: u.
        direction: d.
        one_sided: whether only h >= 0 is inside.
    """

    space: Space | None
    start: PyTree
    direction: PyTree
    one_sided: bool = eqx.field(static=True)

    def at(self, h: Array | float) -> PyTree:
        """The point λ(h)."""
        along = lambda u, d: u + jnp.asarray(h, d.real.dtype) * d  # noqa: E731
        return self._unchart(jax.tree.map(along, self.start, self.direction))

    @property
    def velocity(self) -> PyTree:
        """The derivative λ'(0)."""
        return jax.jvp(self._unchart, (self.start,), (self.direction,))[1]

    def _unchart(self, u: PyTree) -> PyTree:
        return u if self.space is None else self.space.unchart(u)


def line_through(space: Space, point: PyTree, key: Array) -> Line:
    """A line in a random direction in which leaves count alike, whatever their magnitude and size.

    Leaves move by their norm (by 1, if it is zero), times a coordinate of a unit vector over the leaves.
    """
    for_shares, for_leaves = jax.random.split(key)
    drawn = _drawn(space, point, for_leaves)
    shares = jnp.abs(jax.random.normal(for_shares, (len(drawn),)))
    return _line(space, point, drawn, shares=(shares / jnp.linalg.norm(shares)).tolist())


def lines_through_leaves(space: Space | None, point: PyTree, key: Array) -> Iterator[Line]:
    """One line for each leaf of ``point``, along which this leaf moves by its norm and the others rest."""
    drawn = _drawn(space, point, key)
    for i in range(len(drawn)):
        yield _line(space, point, drawn, shares=[float(i == j) for j in range(len(drawn))])


def unit_normal(like: PyTree, key: Array) -> PyTree:
    """Random numbers in the structure of ``like``, every leaf as long as its own (1, if it is zero)."""
    return jax.tree.unflatten(jax.tree.structure(like), [d for d, _ in _drawn(None, like, key)])


def _line(
    space: Space | None, point: PyTree, drawn: list[tuple[Array, bool]], *, shares: list[float]
) -> Line:
    parts = [direction * share for (direction, _), share in zip(drawn, shares, strict=True)]
    edge = any(edge and share > 0 for (_, edge), share in zip(drawn, shares, strict=True))
    start = point if space is None else space.chart(point)
    return Line(space, start, jax.tree.unflatten(jax.tree.structure(point), parts), edge)


def _drawn(space: Space | None, point: PyTree, key: Array) -> list[tuple[Array, bool]]:
    """For each leaf a direction, and whether only one side of it is inside."""
    leaves = jax.tree.leaves(point)
    domains = [None] * len(leaves) if space is None else _domains(space)
    keys = jax.random.split(key, len(leaves))
    return list(map(_inwards, domains, leaves, keys))


def _inwards(domain: AbstractDomain | None, leaf: Array, key: Array) -> tuple[Array, bool]:
    """A direction that stays inside, and whether its opposite does not."""
    drawn = _scaled_normal(domain, leaf, key)
    if domain is None:
        return drawn, False
    start = domain.chart(leaf)
    sides = [domain.unchart(start + h * drawn) for h in (LONGEST, -LONGEST)]
    inside = [(domain.chart(domain.project(side)) - start) / LONGEST for side in sides]
    shorter, longer = sorted(inside, key=lambda d: float(tree.norm(d)))
    mirrored = domain.contains(domain.unchart(start - LONGEST * shorter))
    if mirrored and tree.norm(shorter) >= _TOO_SHORT * tree.norm(drawn):
        return shorter, False
    return longer, not domain.contains(domain.unchart(start - LONGEST * longer))


def _scaled_normal(domain: AbstractDomain | None, leaf: Array, key: Array) -> Array:
    """A random direction along which the leaf moves by its norm, or by 1 if it is zero."""
    start = leaf if domain is None else domain.chart(leaf)
    drawn = moved = jax.random.normal(key, start.shape, start.dtype)
    if domain is not None:
        _, moved = jax.jvp(domain.unchart, (start,), (drawn,))
    size, length = tree.norm(leaf), tree.norm(moved)
    return drawn * (jnp.where(size > 0, size, 1) / jnp.where(length > 0, length, 1))


def _domains(space: Space) -> list[AbstractDomain]:
    return jax.tree.leaves(space.domains, is_leaf=lambda node: isinstance(node, AbstractDomain))
