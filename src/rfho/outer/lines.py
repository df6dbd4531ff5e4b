"""Trees of numbers in one short line, for messages and tables."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from rfho.typing import PyTree

_SHOWN = 6


def named(value: PyTree, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree with their places as names, with dots.

    Args:
        value: any pytree.
        name: of the leaf of a tree that is one leaf.

    Example:
        >>> import rfho
        >>> list(rfho.outer.named({"lr": 0.5, "net": {"decay": 1.0}}, "hyper"))
        [('lr', 0.5), ('net.decay', 1.0)]
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        yield jax.tree_util.keystr(path, simple=True, separator=".") or name, leaf


def norm(leaves: Iterable[Any]) -> float:
    """The Euclidean one of all NumPy arrays together, in float64; no square overflows.

    Example:
        >>> norm([np.full(4, 1e200)])
        2e+200
    """
    flat = np.concatenate([np.ravel(leaf).astype(float) for leaf in leaves] or [np.zeros(1)])
    largest = float(np.max(np.abs(flat), initial=0.0))
    return largest * float(np.linalg.norm(flat / largest)) if 0 < largest < np.inf else largest


def shown(value: PyTree) -> str:
    """A tree of numbers in one short line: scalars as they are, arrays by their range.

    Args:
        value: λ, an objective, or any other pytree.

    Example:
        >>> import numpy as np, rfho
        >>> rfho.outer.shown({"lr": 0.5, "net": {"decay": np.arange(3.0)}})
        'lr = 0.5, net.decay = 0 to 2 (3)'
    """
    leaves = list(named(value, ""))
    parts = [
        f"{name} = {_number(leaf)}" if name else _number(leaf) for name, leaf in leaves[:_SHOWN]
    ]
    return ", ".join(parts) + (f", and {len(leaves) - _SHOWN} more" if len(leaves) > _SHOWN else "")


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
