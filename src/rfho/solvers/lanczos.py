"""What a few products tell about a matrix: its extreme eigenvalues, its growth, its symmetry.

Lanczos (1950): k products M x_1, …, M x_k span a space in which a symmetric M is a tridiagonal T_k,

    M X_k = X_k T_k + β_k x_{k+1} e_kᵀ,

and every eigenpair (θ, s) of T_k is one of M up to |β_k s_k|: some eigenvalue of M lies that near
to θ. From a random start the extreme ones are found first.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from rfho._programs import trees as tree
from rfho.typing import PyTree, Scalar


class Spectrum(NamedTuple):
    """The extreme eigenvalues of a symmetric matrix, each with how far off it may be.

    Attributes:
        smallest: the smallest θ; the smallest eigenvalue is no larger.
        below: |β_k s_k| of it: an eigenvalue lies between ``smallest - below`` and ``smallest``,
            and unless Lanczos has missed a smaller one altogether it is the smallest.
        largest: the largest θ; the largest eigenvalue is no smaller.
        above: the same for it.
    """

    smallest: Scalar
    below: Scalar
    largest: Scalar
    above: Scalar


def lanczos(apply: Callable[[PyTree], PyTree], start: PyTree, products: int) -> Spectrum:
    """The extreme eigenvalues of the symmetric ``apply``, as seen from ``start``.

    Vectors are not kept and so not made orthogonal anew: memory 3 vectors. Rounding then repeats
    eigenvalues that are found already, which does no harm at the ends.
    """
    first = normalised(start)

    def step(
        carry: tuple[PyTree, PyTree, Scalar, Scalar], _: None
    ) -> tuple[tuple[PyTree, PyTree, Scalar, Scalar], tuple[Scalar, Scalar]]:
        before, x, beta, home = carry
        image = tree.subtract(apply(x), tree.scale(beta, before))
        alpha = tree.dot(x, image)
        image = tree.subtract(image, tree.scale(alpha, x))
        # Where the space is exhausted x becomes 0; the first Rayleigh quotient then stands in for
        # eigenvalues that are not there, as it is never an extreme one.
        exhausted = tree.dot(x, x) == 0
        home = jnp.where(jnp.isnan(home), alpha, home)
        alpha = jnp.where(exhausted, home, alpha)
        beta = tree.norm(image).astype(alpha.dtype)
        noise = 10 * epsilon(x) * (jnp.abs(alpha) + jnp.abs(home))
        beta = jnp.where(beta > noise, beta, 0)
        following = tree.scale(jnp.where(beta > 0, 1 / jnp.where(beta > 0, beta, 1), 0), image)
        return (x, following, beta, home), (alpha, beta)

    zero = jnp.zeros_like(tree.dot(first, first))
    carry = (jax.tree.map(jnp.zeros_like, first), first, zero, jnp.full_like(zero, jnp.nan))
    _, (alphas, betas) = jax.lax.scan(step, carry, None, length=products)
    matrix = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    values, vectors = jnp.linalg.eigh(matrix)
    off = jnp.abs(betas[-1] * vectors[-1])
    return Spectrum(values[0], off[0], values[-1], off[-1])


def radius(apply: Callable[[PyTree], PyTree], start: PyTree, products: int) -> Scalar:
    """The spectral radius of any matrix, by the growth of its powers over the second half of them.

    The geometric mean over several products is right for complex pairs too, where single quotients
    never settle.
    """

    def step(x: PyTree, _: None) -> tuple[PyTree, Scalar]:
        image = apply(x)
        return normalised(image), tree.norm(image)

    _, growth = jax.lax.scan(step, normalised(start), None, length=products)
    return jnp.exp(jnp.mean(jnp.log(growth[products // 2 :])))


def asymmetry(apply: Callable[[PyTree], PyTree], left: PyTree, right: PyTree) -> Scalar:
    """√n |u·Mv - v·Mu| / (‖Mu‖ + ‖Mv‖) for random directions u, v of length 1.

    0 for a symmetric M, of order 1 for one that is far from it: √n is what a product of random
    directions lacks.
    """
    right_image, left_image = apply(right), apply(left)
    difference = tree.dot(left, right_image) - tree.dot(right, left_image)
    scale = tree.norm(left_image) + tree.norm(right_image)
    return math.sqrt(tree.size(left)) * jnp.abs(difference) / jnp.where(scale > 0, scale, 1)


def random_direction(like: PyTree, seed: int) -> PyTree:
    """A direction without preference, in the structure of ``like``; always the same one."""
    flat, unravel = ravel_pytree(like)
    return normalised(unravel(jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype)))


def normalised(vector: PyTree) -> PyTree:
    """``vector`` with length 1; 0 stays 0."""
    size = tree.norm(vector)
    return tree.scale(jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0), vector)


def epsilon(vector: PyTree) -> float:
    """The rounding unit of ``vector``'s dtype."""
    return float(jnp.finfo(jnp.result_type(*jax.tree.leaves(vector))).eps)
