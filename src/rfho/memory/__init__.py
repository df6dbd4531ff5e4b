"""How much of the trajectory is kept for the way back: memory against time.

A policy runs the trajectory forward and leaves a *tape*; later it walks the tape backwards and
hands every step to the caller's ``pull_back``. All policies visit the same states in the same
order, so the hypergradient does not depend on the policy; only the number of stored states and of
repeated steps does.

    StoreAll            T states           every step run once
    Recompute           2 √T states        every step run twice
    Binomial(slots)     ``slots`` states   at most r + 1 times, with C(slots + r, r) >= T
    Anchored(every)     T/every states     every step run once, and undone where it can be

`Binomial` is the schedule of Griewank and Walther's revolve (ACM TOMS 26(1), 2000), provably
optimal.
"""

from rfho.memory.anchored import Anchored
from rfho.memory.binomial import Binomial, schedule
from rfho.memory.checkpoint import AbstractCheckpoint, Chain, Span, advance
from rfho.memory.disk_shelf import DiskShelf
from rfho.memory.encoding import AbstractEncoding, Exact, HalfPrecision, HostMemory
from rfho.memory.recompute import Recompute
from rfho.memory.replay import Replay
from rfho.memory.shards import is_partly_here, on_device, to_host
from rfho.memory.shelf import AbstractShelf, HostCopy, HostShelf
from rfho.memory.store_all import StoreAll

__all__ = [
    "AbstractCheckpoint",
    "AbstractEncoding",
    "AbstractShelf",
    "Anchored",
    "Binomial",
    "Chain",
    "DiskShelf",
    "Exact",
    "HalfPrecision",
    "HostCopy",
    "HostMemory",
    "HostShelf",
    "Recompute",
    "Replay",
    "Span",
    "StoreAll",
    "advance",
    "is_partly_here",
    "on_device",
    "schedule",
    "to_host",
]
