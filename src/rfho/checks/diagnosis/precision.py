"""Half precision: hypergradients drown in it.

A product of T steps in bfloat16 is off by some T · 2^-8 of itself. Updates below the last place of a
parameter are lost altogether, which the shares of `Record.standstill` show.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfho import _tree as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.signal import Record
from rfho.typing import PyTree


def half_precision_leaves(values: PyTree, name: str) -> list[tuple[int, str, str]]:
    """Number among the inexact leaves, path and dtype of every float16 or bfloat16 leaf."""
    leaves = [
        (tree.path_of(path, name), leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(values)
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return [
        (i, path, str(dtype))
        for i, (path, dtype) in enumerate(leaves)
        if jnp.finfo(dtype).bits < 32
    ]


def precision_findings(record: Record) -> list[Finding]:
    """One finding for the first leaf of the state in half precision, with what it loses."""
    leaves = half_precision_leaves(record.final, "state")
    if not leaves:
        return []
    number, path, dtype = leaves[0]
    lost = float(np.mean(np.asarray(record.standstill)[:, number]))
    others = f" ({len(leaves)} leaves in all)" if len(leaves) > 1 else ""
    message = (
        f"{path} has dtype {dtype}{others}: on average {100 * lost:.0f} % of its entries move by less than four "
        "units in the last place per step, and what the tangents and adjoints lose adds up over the steps. "
        "Keep state and hyperparameters in float32 or float64 and cast inside the loss alone"
    )
    return [Finding(Kind.LOW_PRECISION, Where(leaf=path), message, Severity.WARNING)]
