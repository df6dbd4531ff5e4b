"""What data parallelism on two cores could bring, from the processor time of threads.

    python -m benchmarks.data_parallel [P2] [P4]
    python -m benchmarks.data_parallel fsdp [P2] [P4]

Plain training on one simulated device and on two, each in a process of its own. A thread that waits takes no
processor time, so that on a machine with other work, where seconds say little,

    bound = CPU of one device / CPU of the busiest thread with two

is what two free cores would bring at most; CPU of one device / CPU of all threads with two is the share of useful
work.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HORIZONS = {"P2": 200, "P4": 20}
LARGE = {"P2": {"size": 100}, "P4": {"size": 8}}


def seconds_of_threads() -> dict[str, float]:
    """Processor time of each thread of this process."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for stat in Path("/proc/self/task").glob("*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        found[stat.parent.name] = (int(fields[11]) + int(fields[12])) / tick
    return found


def measured(name: str, devices: int, verb: str) -> dict[str, Any]:
    """Training once to compile and then five times, on so many devices."""
    import equinox as eqx
    import jax

    import rfho
    from benchmarks import problems

    benchmark = {"P2": problems.tanh_network, "P4": problems.transformer}[name]
    _, problem, hyper = benchmark(HORIZONS[name], **LARGE[name])
    if devices > 1:
        mesh = jax.make_mesh((devices,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
        problem = getattr(rfho.placement, verb)(problem, mesh)
    method = rfho.ReverseHyperGradient()
    train = eqx.filter_jit(lambda problem, hyper: method.conclude(problem, hyper, None))
    jax.block_until_ready(train(problem, hyper))
    before, begun = seconds_of_threads(), time.perf_counter()
    for _ in range(5):
        jax.block_until_ready(train(problem, hyper))
    wall, after = time.perf_counter() - begun, seconds_of_threads()
    busy = sorted((now - before.get(thread, 0.0) for thread, now in after.items()), reverse=True)
    return {"wall": wall, "all": sum(busy), "threads": [round(one, 2) for one in busy[:6]]}


def in_a_process(name: str, devices: int, verb: str) -> dict[str, Any]:
    """The same in a process of its own, since the number of devices is fixed when JAX starts."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false"
    command = [sys.executable, "-m", "benchmarks.data_parallel", "--in", name, str(devices), verb]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    """Prints a line for each problem."""
    if arguments[:1] == ["--in"]:
        print(json.dumps(measured(arguments[1], int(arguments[2]), arguments[3])))
        return
    verb = "fsdp" if "fsdp" in arguments else "data_parallel"
    for name in [one for one in arguments if one != verb] or list(HORIZONS):
        one, two = in_a_process(name, 1, verb), in_a_process(name, 2, verb)
        print(
            f"{name}: one device {one['wall']:.2f} s, CPU {one['all']:.2f} s, by thread {one['threads']}; two "
            f"{two['wall']:.2f} s, CPU {two['all']:.2f} s, by thread {two['threads']}; useful "
            f"{one['all'] / two['all']:.2f}, bound {one['all'] / two['threads'][0]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
