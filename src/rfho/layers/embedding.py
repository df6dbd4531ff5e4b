"""Rows of a table by their index; rows that nobody asks for are silent.

The derivative of a row that is not looked up is exactly zero, of every order. An index outside of the table is
padding: a row of zeros that no derivative enters, where JAX would take the nearest row.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer


def embedding(
    table: Float[Array, "rows *row"], index: Integer[Array, "*places"]
) -> Float[Array, "..."]:
    """The rows of ``table`` at ``index``, of shape ``(*places, *row)``.

    Under Adam an unused row has a second moment of exactly zero, whose root has no derivative: under `Descent` such
    rows stay silent in the hypergradient too.

    Args:
        table: rows by their index.
        index: ints; below 0 or beyond the last row it is padding.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> rfho.layers.embedding(jnp.array([[1.0], [2.0]]), jnp.array([1, -1, 5])).tolist()
        [[2.0], [0.0], [0.0]]
    """
    beyond = len(table)
    return table.at[jnp.where(index < 0, beyond, index)].get(mode="fill", fill_value=0)
