"""The matrix of an adjoint system by a few of its products: curvature, reach, contraction.

Of a symmetric matrix the eigenvalues are looked at, of any other the singular values; both by
Lanczos, see `rfho.solvers.lanczos`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfho._implicit.condition import System
from rfho._programs import trees as tree
from rfho.solvers.lanczos import Spectrum, epsilon, lanczos, radius, random_direction
from rfho.typing import Hyper, PyTree, Scalar


class Spread(NamedTuple):
    """The ends of the spectrum.

    Attributes:
        curvature: the smallest as seen; 0 if it is lost in rounding.
        least: μ, a lower estimate of it; 0 if there is none above 0.
        largest: an upper estimate of the largest.
        products: what the look took.
    """

    curvature: Scalar
    least: Scalar
    largest: Scalar
    products: int


def spread_of(system: System, probe: PyTree, products: int, *, known: float | None) -> Spread:
    """The ends of the spectrum as seen from ``probe``; ``known`` takes the place of the estimate μ."""
    apply, transpose = system.operator
    if system.symmetric:
        seen = values = lanczos(apply, probe, products)
    else:
        seen = lanczos(lambda q: apply(transpose(q)), probe, products)
        values = _roots(seen)
    lost = jnp.abs(seen.smallest) <= 100 * epsilon(probe) * seen.largest
    least = jnp.where(lost, 0, jnp.maximum(values.smallest - values.below, 0))
    return Spread(
        curvature=jnp.where(lost, 0, values.smallest),
        least=least if known is None else jnp.full_like(least, known),
        largest=values.largest + values.above,
        products=products if system.symmetric else 2 * products,
    )


def contraction_of(
    system: System, probe: PyTree, spread: Spread, *, rate: float, products: int
) -> Scalar:
    """The spectral radius of I - ``rate`` M."""
    if system.symmetric:
        # Lanczos is surer of the ends than powers of the matrix are.
        ends = jnp.stack([spread.curvature, spread.largest])
        return jnp.max(jnp.abs(1 - rate * ends))

    def iterated(q: PyTree) -> PyTree:
        return tree.subtract(q, tree.scale(rate, system.operator.apply(q)))

    return radius(iterated, probe, products)


def cross_norm(system: System, unknowns: PyTree, hyper: Hyper, *, products: int) -> Scalar:
    """An upper estimate of ‖∂F/∂λ‖, from ``products`` with it and as many with its transpose."""

    def squared(direction: Hyper) -> Hyper:
        (across,) = jax.linear_transpose(system.cross, unknowns)(direction)
        return system.cross(across)

    seen = lanczos(squared, random_direction(hyper, 2), products)
    return jnp.sqrt(jnp.maximum(seen.largest + seen.above, 0))


def _roots(squares: Spectrum) -> Spectrum:
    """Singular values from the eigenvalues of M Mᵀ."""
    smallest, largest = _root(squares.smallest), _root(squares.largest)
    return Spectrum(
        smallest,
        smallest - _root(squares.smallest - squares.below),
        largest,
        _root(squares.largest + squares.above) - largest,
    )


def _root(value: Scalar) -> Scalar:
    return jnp.sqrt(jnp.maximum(value, 0))
