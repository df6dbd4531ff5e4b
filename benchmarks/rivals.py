"""What else is said to tell the influence of examples: each from the trained model alone, or a few checkpoints.

A score has the sign and the shape of an influence, (queries, examples): below 0 an example has helped.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rfho._programs import trees as tree
from rfho.solvers import CG, Operator


class Sides(NamedTuple):
    """Losses of examples with the ``logits`` that they see, the examples trained on, and those asked about."""

    each: Any
    train: tuple[jax.Array, jax.Array]
    valid: tuple[jax.Array, jax.Array]


@eqx.filter_jit
def one_step(sides: Sides, params: Any) -> jax.Array:
    """-∇E_j · ∇ℓ_i at one point."""

    def of_query(slope: Any) -> jax.Array:
        return -jax.jvp(lambda w: sides.each(w, None, sides.train), (params,), (slope,))[1]

    return jax.lax.map(of_query, _slopes(sides, params))


def tracin(sides: Sides, checkpoints: Sequence[Any]) -> np.ndarray:
    """Sums of them over checkpoints of training (TracIn, arXiv 2002.08484)."""
    return np.sum([np.asarray(one_step(sides, params)) for params in checkpoints], axis=0)


def implicit(sides: Sides, params: Any, *, damping: float, products: int) -> np.ndarray:
    """-∇E_j · (G + δ)⁻¹ ∇ℓ_i by conjugate gradients, G the Gauss-Newton matrix of the training loss."""
    number = sides.valid[1].shape[0]
    slopes = _slopes(sides, params)
    each = [jax.tree.map(lambda leaf, j=j: leaf[j], slopes) for j in range(number)]
    return np.stack([_by_curvature(sides, params, slope, damping, products) for slope in each])


@eqx.filter_jit
def _by_curvature(
    sides: Sides, params: Any, slope: Any, damping: float, products: int
) -> jax.Array:
    def logits(w: Any) -> jax.Array:
        return sides.each.logits(w, sides.train[0])

    p = jax.nn.softmax(logits(params))

    def apply(q: Any) -> Any:
        pushed = jax.jvp(logits, (params,), (q,))[1]
        bent = p * (pushed - jnp.sum(p * pushed, axis=1, keepdims=True)) / p.shape[0]
        (back,) = jax.vjp(logits, params)[1](bent)
        return tree.add(back, tree.scale(damping, q))

    zeros = jax.tree.map(jnp.zeros_like, slope)
    moved = CG(products).solve(Operator(apply, apply), slope, zeros, tolerance=1e-4).solution
    return -jax.jvp(lambda w: sides.each(w, None, sides.train), (params,), (moved,))[1]


def neighbours(sides: Sides) -> np.ndarray:
    """Cosine between pixels: of the same class it helps, of another it harms."""
    (x, y), (q, of) = (tuple(map(np.asarray, side)) for side in (sides.train, sides.valid))
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    return unit(q) @ unit(x).T * np.where(of[:, None] == y, -1.0, 1.0)


def _slopes(sides: Sides, params: Any) -> Any:
    """∇E_j of each query."""
    return jax.jacrev(lambda w: sides.each(w, None, sides.valid))(params)
