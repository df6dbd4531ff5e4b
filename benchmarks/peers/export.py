"""Writes the problems as arrays, with our hypergradients in float64: what the peers compute and must agree with.

``python -m benchmarks.peers.export FILE`` (run by `benchmarks.peers.run`, with float64 switched on).
"""

import sys
from typing import Any

import jax
import numpy as np

import rfho
from benchmarks import problems


def shared() -> list[problems.Benchmark]:
    """P1 to P3, as all programs solve them."""
    return [
        problems.softmax_regression(50),
        problems.tanh_network(200),
        problems.convolutional_network(50),
    ]


def main(path: str) -> None:
    """Writes one npz file."""
    jax.config.update("jax_enable_x64", True)
    arrays: dict[str, Any] = {}
    for name, problem, hyper in shared():
        indexed = isinstance(problem.train, rfho.Indexed)
        given = {
            "params": problem.init(hyper).params,
            "hyper": hyper,
            "train": problem.train.data if indexed else problem.train,
            "index": problem.train.index if indexed else None,
            "valid": problem.valid,
            "hypergradient": rfho.hyper_gradient(problem, hyper).hypergradient,
        }
        for leaf_path, leaf in jax.tree_util.tree_leaves_with_path(given):
            arrays[f"{name}{jax.tree_util.keystr(leaf_path)}"] = np.asarray(leaf)
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
