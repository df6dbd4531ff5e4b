"""One thread on one core, so that figures compare across machines."""

import os


def one_thread() -> None:
    """Binds the process to one core and XLA to one thread; to be called before JAX starts."""
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
