"""Attention in blocks of queries, so that memory grows with the sequence and not with its square.

    y_i = Σ_j p_ij v_j,    p_ij = exp(q_i · k_j / √d) / Σ_l exp(q_i · k_l / √d)

Fused kernels have a derivative written by hand, for one mode and one order. Here a block of rows of p is made,
used and forgotten, and made again on the way back by `jax.checkpoint` (arXiv 2112.05682, without its inner loop).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from rfho.errors import positive_int


def attention(
    query: Float[Array, "*batch n d"],
    key: Float[Array, "*batch m d"],
    value: Float[Array, "*batch m v"],
    *,
    causal: bool = False,
    block: int = 128,
) -> Float[Array, "*batch n v"]:
    """Softmax attention with derivatives of every order in both modes.

    Args:
        query: q, n of them.
        key: k, m of them.
        value: v, one for each key.
        causal: whether query i sees the keys up to i alone; needs as many keys as queries.
        block: how many queries are computed at a time: memory is that of ``block`` rows of m weights.

    Raises:
        ValueError: ``block`` is below 1, or ``causal`` and n ≠ m.

    Cost:
        Time as the plain formula, and once more on the way back; memory O(block · m + n).

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> x = jax.random.normal(jax.random.key(0), (8, 100, 4))  # heads, sequence, features
        >>> rfho.layers.attention(x, x, x, causal=True, block=32).shape
        (8, 100, 4)
    """
    block = min(positive_int(block, "block", "attention"), query.shape[-2])
    count, keys = query.shape[-2], key.shape[-2]
    if causal and count != keys:
        raise ValueError(
            f"attention got causal=True with {count} queries and {keys} keys, but query i sees the keys up to i: "
            "give as many of both"
        )
    blocks = -(-count // block)
    padded = jnp.pad(query, [(0, 0)] * (query.ndim - 2) + [(0, blocks * block - count), (0, 0)])
    rows = jnp.moveaxis(padded.reshape(*query.shape[:-2], blocks, block, -1), -3, 0)

    @jax.checkpoint
    def of_block(place: Array, rows: Array) -> Array:
        logits = rows @ jnp.swapaxes(key, -1, -2) / jnp.sqrt(query.shape[-1]).astype(query.dtype)
        if causal:
            seen = jnp.arange(keys) <= place * block + jnp.arange(block)[:, None]
            logits = jnp.where(seen, logits, -jnp.inf)
        return jax.nn.softmax(logits, axis=-1) @ value

    found = jax.lax.map(lambda each: of_block(*each), (jnp.arange(blocks), rows))
    return jnp.moveaxis(found, 0, -3).reshape(*query.shape[:-2], blocks * block, -1)[..., :count, :]
