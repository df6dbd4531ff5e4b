"""Snapshots of arrays over eight simulated devices, whose writer is killed with -9, and whose bits are flipped.

    python sharded_snapshots.py FOLDER ROUNDS FLIPS

Imports everything once and forks each writer and reader before JAX has begun anything. Prints a line for each round.
"""

import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rfho.errors import SnapshotError
from rfho.outer import load_snapshot, save_snapshot

AXES = {"rows": ("d",), "columns": (None, "d"), "whole": ()}


def state(number):
    """Three layouts, every number of them the snapshot's, and a key."""
    mesh = jax.make_mesh((8,), ("d",))
    filled = np.full((16, 8), number, np.float32)
    put = lambda axes: jax.device_put(filled, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
    key = jax.device_put(jax.random.key(number), NamedSharding(mesh, PartitionSpec()))
    return {name: put(axes) for name, axes in AXES.items()} | {"key": key}


def write(folder):
    for number in range(1, 10_000):
        assert save_snapshot(folder, state(number), {}) >= number


def read(folder, flips, seed):
    """What is there is whole and lies as it lay; with any bit flipped the one before it is taken, or none."""
    like, draw = state(0), random.Random(seed)
    found = load_snapshot(folder, lambda sections: like)
    check(found.state, like)
    path = folder / f"{found.number:08d}" / "arrays.safetensors"
    stored = path.read_bytes()
    for _ in range(flips):
        changed = bytearray(stored)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            other = load_snapshot(folder, lambda sections: like)
        except SnapshotError:
            continue
        assert other.number < found.number, "a damaged snapshot was taken"
        check(other.state, like)
    path.write_bytes(stored)


def check(found, like):
    number = int(found["whole"][0, 0])
    for name, expected in state(number).items():
        bits = jax.random.key_data if name == "key" else jnp.asarray
        assert jnp.array_equal(bits(found[name]), bits(expected)), name
        assert found[name].sharding.is_equivalent_to(like[name].sharding, found[name].ndim), name


def forked(work, *given):
    child = os.fork()
    if child:
        return child
    try:
        work(*given)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main():
    warnings.simplefilter("ignore")  # JAX does not like forks, but the parent never computes
    folder, rounds, flips = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(0)
    for i in range(rounds):
        place = folder / str(i)
        writer = forked(write, place)
        while not list(place.glob("*/commit.json")):
            time.sleep(1e-3)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        _, status = os.waitpid(forked(read, place, flips, i), 0)
        sys.stdout.write("whole\n" if status == 0 else "damaged\n")


if __name__ == "__main__":
    main()
