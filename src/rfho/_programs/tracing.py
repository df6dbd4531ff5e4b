"""Whether a value is known, or stands for one while a program is traced."""

from typing import Any

import jax
from jax.core import Tracer

from rfho.typing import PyTree


def is_traced(value: Any) -> bool:
    """Whether ``value`` has no number yet: it belongs to a program that JAX is tracing."""
    return isinstance(value, Tracer)


def any_traced(tree: PyTree) -> bool:
    """Whether a leaf of ``tree`` is traced."""
    return any(map(is_traced, jax.tree.leaves(tree)))
