"""A run that two processes keep together; they are stopped, killed with -9, their bits flipped, and both go on.

    python kept_by_two.py FOLDER KILLS

Imports everything once and forks each process before JAX has begun anything. Prints what each says in JSON; with
KILLS more than 0, one of them is first killed so often at any moment.
"""

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from pathlib import Path

from flags import quickly

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = quickly()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rfho

FOLDER, KILLS = Path(sys.argv[1]), int(sys.argv[2])
STEPS = 40 * KILLS or 6
_ = rfho.Run  # which imports what draws


class Sender(rfho.Listener):
    """Sends the second process a signal, where the other one waits for it."""

    def __init__(self, number, step):
        self.number, self.at = number, step

    def step(self, report):
        if jax.process_index() == 1 and report.step == self.at:
            os.kill(os.getpid(), self.number)


def loss(w, hyper, batch):
    errors = jnp.sum((batch[0] @ w - batch[1]) ** 2, axis=1)
    return jnp.mean(jax.nn.sigmoid(hyper["weights"]) * errors)


def objective(w, hyper, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def rate(hyper):
    return optax.sgd(hyper["lr"])


def tuned(**more):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))

    def spread(array, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    draw = np.random.default_rng(0)
    inputs, answers = (draw.normal(size=(16, width)).astype(np.float32) for width in (4, 2))
    train = spread(inputs, "d"), spread(answers, "d")
    dynamics = rfho.Descent(loss, rate, spread(np.zeros((4, 2), np.float32), "d"))
    problem = rfho.Problem(dynamics, objective, train, train, horizon=4)
    hyper = {"lr": spread(np.float32(0.1)), "weights": spread(np.zeros(16, np.float32), "d")}
    return rfho.tune(problem, hyper, optim=OUTER, steps=STEPS, **more)


OUTER = optax.adam(0.1)


def bits(tree):
    """All that this process holds, and how it lies."""
    return [
        (str(leaf.sharding), [np.asarray(part.data).tobytes() for part in leaf.addressable_shards])
        if isinstance(leaf, jax.Array)
        else np.asarray(leaf).tobytes()
        for leaf in jax.tree.leaves(tree)
    ]


def seen(solution):
    reports = [report._replace(seconds=0.0) for report in solution.history]
    return bits((solution.hyper, solution.value, solution.params, solution.best, reports))


def say(**found):
    # In one piece: the processes share the stream.
    os.write(1, f"{json.dumps({'process': jax.process_index()} | found)}\n".encode())


def lose(folder):
    """Both are stopped in the second step, as one gets SIGINT; that one is killed in the fourth."""
    run = rfho.Run(folder, every=1)
    stopped = tuned(run=run, listeners=[Sender(signal.SIGINT, 2)])
    say(stopped=stopped.result.name, steps=len(stopped.history))
    try:
        tuned(run=run, listeners=[Sender(signal.SIGKILL, 4)])
    except rfho.HyperGradientError as error:
        say(lost=error.result.name, steps=len(error.solution.history))


def go_on(folder):
    """To the end; then what must not begin."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        resumed = tuned(run=rfho.Run(folder, every=1))
    remarks = [str(one.message) for one in said if "snapshot" in str(one.message)]
    say(steps=len(resumed.history), same=seen(resumed) == seen(tuned()), remarks=remarks)
    try:
        tuned(run=rfho.Run(folder.with_name("taken")))
    except Exception as error:
        say(refused=f"{type(error).__name__}: {error}")


def keep(folder):
    tuned(run=rfho.Run(folder, every=1))


def begun(work, folder):
    """Both processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [forked(work, folder, address, rank) for rank in (0, 1)]


def forked(work, folder, address, rank):
    child = os.fork()
    if child:
        return child
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, 2, rank, heartbeat_timeout_seconds=5)
        work(folder)
        jax.distributed.shutdown()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def last(folder):
    """The last snapshot that the first process has committed."""
    return max((path.parent.name for path in folder.glob("snapshots/*/commit.json")), default="")


def flip(folder):
    """A bit in the second process's part of the last snapshot that the first one has committed; which it is."""
    number = last(folder)
    part = folder / "process-1" / "snapshots" / number / "arrays.safetensors"
    content = bytearray(part.read_bytes())
    content[-3] ^= 4
    part.write_bytes(content)
    return int(number)


def main():
    warnings.simplefilter("ignore")  # JAX does not like forks, but the parent never computes
    folder, draw = FOLDER, random.Random(0)
    for _ in range(KILLS):
        both = begun(keep, folder)
        time.sleep(draw.uniform(1, 8))
        os.kill(draw.choice(both), signal.SIGKILL)
        time.sleep(draw.uniform(0, 0.1))
        for process in both:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        print(json.dumps({"killed at": last(folder)}), flush=True)  # noqa: T201
    if not KILLS:
        first, second = begun(lose, folder)
        os.waitpid(second, 0)
        lost = time.monotonic()
        os.waitpid(first, 0)
        report = json.loads((folder / "run.json").read_text())["reason"]
        seconds, flipped = time.monotonic() - lost, flip(folder)
        print(json.dumps({"seconds": seconds, "reason": report, "flipped": flipped}), flush=True)  # noqa: T201
        folder.with_name("taken").mkdir()
        (folder.with_name("taken") / "process-1").write_text("")
    for process in begun(go_on, folder):
        os.waitpid(process, 0)


if __name__ == "__main__":
    main()
