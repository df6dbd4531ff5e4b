"""One problem, its examples over two processes that talk by loopback; prints what came of it, a cell a line.

    python on_two_processes.py RANK PORT FOLDER CELL...

`test_two_processes.py` starts both.
"""

import json
import os
import sys

from flags import quickly

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = quickly()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rfho

RANK, PORT, FOLDER, CELLS = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
# After all imports: importing the library starts no device.
jax.distributed.initialize(f"127.0.0.1:{PORT}", 2, RANK)

MESH = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(32, 8)), DRAW.integers(0, 4, 32)
HYPER = {"lr": np.asarray(0.3), "l2": np.asarray(1e-3), "weights": np.zeros(32)}
OUTER = optax.sgd(0.01)


def whole(array):
    """On the device of this process alone."""
    return jnp.asarray(array)


def spread(array, *axes):
    """Over both processes."""
    sharding = NamedSharding(MESH, PartitionSpec(*axes))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def problem(place):
    def cross_entropies(w, batch):
        return optax.softmax_cross_entropy_with_integer_labels(batch[0] @ w, batch[1])

    def loss(w, hyper, batch):
        weighted = jax.nn.sigmoid(hyper["weights"]) * cross_entropies(w, batch)
        return jnp.mean(weighted) + hyper["l2"] * jnp.sum(w**2)

    def objective(w, hyper, batch):
        return jnp.mean(cross_entropies(w, batch))

    examples = () if place is whole else ("d",)
    params = place(np.zeros((8, 4)), *([None, *examples] if examples else []))
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"], momentum=0.5), params)
    train = place(X, *examples), place(Y, *examples)
    return rfho.Problem(dynamics, objective, train, train, horizon=8)


def hyper(place):
    examples = {"weights": ("d",)} if place is spread else {}
    return {name: place(leaf, *examples.get(name, ())) for name, leaf in HYPER.items()}


def error(found, expected):
    """Of what this process holds, against the same of one process."""
    worst = 0.0
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        theirs = np.asarray(theirs)
        shards = ours.addressable_shards if isinstance(ours, jax.Array) else []
        parts = [(shard.index, np.asarray(shard.data)) for shard in shards] or [((), ours)]
        for index, part in parts:
            worst = max(worst, float(np.abs(part - theirs[index]).max() / np.abs(theirs).max()))
    return worst


def estimates(method):
    both = [rfho.hyper_gradient(problem(place), hyper(place), method) for place in (spread, whole)]
    return [(one.value, one.hypergradient) for one in both]


def tuned(method):
    spanning, alone = (
        rfho.tune(problem(place), hyper(place), method=method, optim=OUTER, steps=4, tolerance=1e-3)
        for place in (spread, whole)
    )
    assert str(spanning).splitlines()[0] == str(alone).splitlines()[0]
    assert len(spanning.history) == len(alone.history) > 1
    assert not spanning.hyper["weights"].is_fully_addressable
    return (spanning.value, spanning.hyper), (alone.value, alone.hyper)


METHODS = {
    "StoreAll": rfho.ReverseHyperGradient(),
    "Recompute": rfho.ReverseHyperGradient(rfho.Recompute()),
    "LongReverse": rfho.LongReverseHyperGradient(4),
    "LongReverse on disk": rfho.LongReverseHyperGradient(4, shelf=rfho.DiskShelf(FOLDER)),
}


def main():
    for name in CELLS:
        verb, _, method = name.rpartition(" by ")
        report(name, *(tuned if verb else estimates)(METHODS[method]))


def report(name, found, expected):
    sys.stdout.write(json.dumps({"cell": name, "error": error(found, expected)}) + "\n")


if __name__ == "__main__":
    main()
