"""How much memory there is for arrays."""

import os
from pathlib import Path

import jax

_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_of_device() -> int:
    """Bytes of the default device's memory: all of it, not what happens to be free.

    On an accelerator what the device says; on a CPU the memory of the machine, or of the container
    around the process if that is less.
    """
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, _limit_of_container(machine))


def _limit_of_container(otherwise: int) -> int:
    try:
        said = _GROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return otherwise
    return int(said) if said.isdigit() else otherwise
