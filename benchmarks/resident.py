"""Memory as the system sees it: the resident memory of this process (Linux, glibc)."""

import contextlib
import ctypes
import time
from collections.abc import Iterator
from pathlib import Path


def begin() -> float:
    """Resident memory now, in MB; `peak` starts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _megabytes("VmRSS")


def peak() -> float:
    """The most resident memory since `begin`, in MB."""
    return _megabytes("VmHWM")


@contextlib.contextmanager
def frugal() -> Iterator[None]:
    """Inside, memory that is free goes back to the system, and is counted when it is used again.

    Not for timing: fresh pages take time.
    """
    try:
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            _GLIBC.mallopt(parameter, 1 << 16)
        release()
        yield
    finally:
        # Where glibc's own adjustment ends for a program that uses large blocks.
        _GLIBC.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        _GLIBC.mallopt(_M_TRIM_THRESHOLD, 1 << 26)


def release() -> None:
    """Gives all free memory back to the system."""
    time.sleep(0.1)  # a thread of JAX's frees memory after the result is there
    _GLIBC.malloc_trim(0)


_GLIBC = ctypes.CDLL(None)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(name))
    return int(kilobytes) * 1.024e-3
