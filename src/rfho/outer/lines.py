"""Trees of numbers in one short line, for messages and tables."""

from typing import Any

import jax
import numpy as np

from rfho.typing import PyTree

_SHOWN = 6


def shown(value: PyTree) -> str:
    """A tree of numbers in one short line: scalars as they are, arrays by their range.

    Args:
        value: λ, an objective, or any other pytree.

    Example:
        >>> import numpy as np, rfho
        >>> rfho.outer.shown({"lr": 0.5, "net": {"decay": np.arange(3.0)}})
        'lr = 0.5, net.decay = 0 to 2 (3)'
    """
    leaves = jax.tree_util.tree_leaves_with_path(value)
    parts = [f"{_key(path)}{_number(leaf)}" for path, leaf in leaves[:_SHOWN]]
    return ", ".join(parts) + (f", and {len(leaves) - _SHOWN} more" if len(leaves) > _SHOWN else "")


def _key(path: tuple[Any, ...]) -> str:
    return f"{jax.tree_util.keystr(path, simple=True, separator='.')} = " if path else ""


def _number(leaf: Any) -> str:
    if not hasattr(leaf, "dtype") and not isinstance(leaf, float):
        return str(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return f"{leaf.dtype}{list(leaf.shape)}"
    numbers = np.asarray(leaf)
    if numbers.size == 1:
        return f"{numbers.item():.4g}"
    if not np.issubdtype(numbers.dtype, np.number):
        return f"{numbers.dtype}{list(numbers.shape)}"
    return f"{numbers.min():.4g} to {numbers.max():.4g} ({numbers.size})"
