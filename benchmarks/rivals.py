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
    """Losses of examples and the examples that they are taken of.

    Attributes:
        each: ``each(params, None, batch)`` has a loss for each example, ``each.logits(params, batch)`` what it
            is the cross-entropy of, the classes last.
        train: trained on.
        valid: asked about.
        piece: how many of ``train`` are read at a time; all of them by default.
        curved: the curvature is that of one piece out of so many.
    """

    each: Any
    train: Any
    valid: Any
    piece: int | None = None
    curved: int = 1

    def moved(self, params: Any, direction: Any) -> jax.Array:
        """How the loss of each example begins to change along ``direction``."""

        def of_one(example: Any) -> jax.Array:
            batch = jax.tree.map(lambda leaf: leaf[None], example)
            loss = lambda w: self.each(w, None, batch)[0]  # noqa: E731
            return jax.jvp(loss, (params,), (direction,))[1]

        return jax.lax.map(of_one, self.train, batch_size=self._read())

    def pieces(self) -> Any:
        """Those of ``train`` whose curvature counts, in equal pieces; what is left over does not."""
        size = self._read()

        def cut(leaf: jax.Array) -> jax.Array:
            whole = leaf[: leaf.shape[0] // size * size].reshape(-1, size, *leaf.shape[1:])
            return whole[:: self.curved]

        return jax.tree.map(cut, self.train)

    def slopes(self, params: Any) -> Any:
        """∇E_j of each query."""
        return jax.jacrev(lambda w: self.each(w, None, self.valid))(params)

    def _read(self) -> int:
        return self.piece or jax.tree.leaves(self.train)[0].shape[0]


@eqx.filter_jit
def one_step(sides: Sides, params: Any) -> jax.Array:
    """-∇E_j · ∇ℓ_i at one point."""
    return jax.lax.map(lambda slope: -sides.moved(params, slope), sides.slopes(params))


def tracin(sides: Sides, checkpoints: Sequence[Any]) -> np.ndarray:
    """Sums of them over checkpoints of training (TracIn, arXiv 2002.08484)."""
    return np.sum([np.asarray(one_step(sides, params)) for params in checkpoints], axis=0)


def implicit(sides: Sides, params: Any, *, damping: float, products: int) -> np.ndarray:
    """-∇E_j · (G + δ)⁻¹ ∇ℓ_i by conjugate gradients, G the Gauss-Newton matrix of the training loss."""
    slopes = jax.jit(sides.slopes)(params)
    number = jax.tree.leaves(slopes)[0].shape[0]
    each = [jax.tree.map(lambda leaf, j=j: leaf[j], slopes) for j in range(number)]
    return np.stack([_by_curvature(sides, params, slope, damping, products) for slope in each])


@eqx.filter_jit
def _by_curvature(
    sides: Sides, params: Any, slope: Any, damping: float, products: int
) -> jax.Array:
    pieces = sides.pieces()
    number = jax.tree.leaves(pieces)[0].shape[0]

    def of_piece(q: Any, batch: Any) -> Any:
        logits, pushed = jax.jvp(lambda w: sides.each.logits(w, batch), (params,), (q,))
        p = jax.nn.softmax(logits)
        bent = p * (pushed - jnp.sum(p * pushed, axis=-1, keepdims=True)) / p[..., 0].size
        (back,) = jax.vjp(lambda w: sides.each.logits(w, batch), params)[1](bent)
        return back

    def apply(q: Any) -> Any:
        add = lambda total, batch: (tree.add(total, of_piece(q, batch)), None)  # noqa: E731
        total, _ = jax.lax.scan(add, tree.scale(0.0, q), pieces)
        bent = tree.scale(1 / number, total)
        return tree.add(bent, tree.scale(damping, q))

    zeros = jax.tree.map(jnp.zeros_like, slope)
    moved = CG(products).solve(Operator(apply, apply), slope, zeros, tolerance=1e-4).solution
    return -sides.moved(params, moved)
