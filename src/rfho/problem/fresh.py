"""Data that are drawn anew at every outer step: fresh orders, masks, splits, episodes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from rfho.typing import Step


class Fresh(eqx.Module):
    """Training data as a function of the outer step k.

    A run that sees the same minibatches in the same order at every outer step fits its hyperparameters to
    that order. With fresh data it follows the mean over orders, at the price of noise in f.

    Args:
        draw: a pure, traceable function ``k -> data``; the data may be arrays, a `Stream` or any other
            function of the inner step t. It is called once per outer step. An `equinox.Module` or a
            `jax.tree_util.Partial` keeps the arrays that it holds as leaves of the problem.

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> key = jax.random.key(0)
        >>> fresh = rfho.Fresh(lambda k: rfho.Stream(jnp.arange(10), 5, jax.random.fold_in(key, k)))
        >>> fresh.draw(3)(0).shape
        (5,)
    """

    draw: Callable[[Step], Any]

    def __check_init__(self) -> None:
        if not callable(self.draw):
            raise TypeError(
                f"Fresh got draw={self.draw!r}, but it must be a function of the outer step k"
            )


def drawn(data: Any, k: Step) -> Any:
    """``data``, drawn for outer step ``k`` where they are `Fresh`."""
    return data.draw(k) if isinstance(data, Fresh) else data
