"""How much memory there is for arrays: of the device, of the machine, of the container, of the process."""

import os
import re
import resource
from pathlib import Path

import jax

_GROUP = Path("/sys/fs/cgroup")
_MACHINE = Path("/proc/meminfo")
_PROCESS = Path("/proc/self/status")


def memory_of_device() -> int:
    """Bytes of the default device's memory: all of it, not what happens to be free.

    On an accelerator what the device says; on a CPU the memory of the machine, or of the container
    around the process if that is less.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return _of_machine()


def free_memory() -> int:
    """Bytes that can still be had on the default device; on a CPU those of the host."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return free_host_memory()


def is_of_host() -> bool:
    """Whether the default device computes in the memory of the host."""
    return jax.default_backend() == "cpu"


def free_host_memory() -> int:
    """Bytes that can still be had in the memory of the host.

    The least of what the machine has available, of what the container may still take, and of what the limit on the
    address space (RLIMIT_AS) leaves to this process.
    """
    left = [_of_machine()]
    available = _kilobytes(_MACHINE, "MemAvailable")
    left += [] if available is None else [available]
    limit, taken = _number(_GROUP / "memory.max"), _number(_GROUP / "memory.current")
    left += [] if limit is None or taken is None else [limit - taken]
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    mapped = _kilobytes(_PROCESS, "VmSize")
    left += [] if space == resource.RLIM_INFINITY or mapped is None else [space - mapped]
    return max(0, min(left))


def _of_machine() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, _number(_GROUP / "memory.max") or machine)


def _number(path: Path) -> int | None:
    try:
        said = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(said) if said.isdigit() else None


def _kilobytes(path: Path, name: str) -> int | None:
    """The entry of a file of the kernel that lists ``name: … kB``, in bytes."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])
