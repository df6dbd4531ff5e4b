"""Half precision: hypergradients drown in it.

A product of T steps in bfloat16 is off by some T · 2^-8 of itself, and updates below the last place of a
parameter are lost altogether.
"""

import jax
import jax.numpy as jnp

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.typing import PyTree, State


def half_precision_leaves(values: PyTree, name: str) -> list[tuple[str, str]]:
    """Path and dtype of every float16 or bfloat16 leaf."""
    dtypes = [
        (tree.path_of(path, name), jnp.result_type(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree.inexact(values))
    ]
    return [(path, str(dtype)) for path, dtype in dtypes if jnp.finfo(dtype).bits < 32]


def precision_findings(state: State) -> list[Finding]:
    """One finding for the first leaf of the state in half precision."""
    leaves = half_precision_leaves(state, "state")
    if not leaves:
        return []
    path, dtype = leaves[0]
    others = f" ({len(leaves)} leaves in all)" if len(leaves) > 1 else ""
    message = (
        f"{path} has dtype {dtype}{others}: updates below four units in the last place are lost, and what tangents "
        "and adjoints lose adds up over the steps. Keep state and hyperparameters in float32 or float64 and cast "
        "inside the loss alone"
    )
    return [Finding(Kind.LOW_PRECISION, Where(leaf=path), message, Severity.WARNING)]
