"""How much of the copying of a shelf is hidden: `python -m benchmarks.overlap [SHARE [UNEVEN [STEPS]]]`.

    hidden = 1 - (way with slow copies - way without copies) / time of the copies

on the way forward, where states are laid down, and on the way back, where they are taken up.
Copies sleep for a time that is known, ``SHARE`` (0.5 by default) of what a segment takes forward, each way; with
``UNEVEN`` from 0 to 1 every second copy takes longer by that part of it and the others less, as a disk may. What
they hide behind is a segment's own work, ``STEPS`` (400) steps. They go through the thread and the hand-over of
`HostShelf` and `DiskShelf`, and take no processor time. Runs with and without copies are taken in turn, and the
least of each counts.
"""

import functools
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

import rfho
from rfho.memory import AbstractShelf, HostCopy
from rfho.memory.shelf import Copier, HostSlots

SIZE, SEGMENTS, REPEATS = 100, 10, 5


TURNED: list[float] = []
"""When states were taken up: the first of them, when the way back began."""


class Slow(AbstractShelf):
    """A `HostShelf` whose copies take ``seconds`` each way.

    Attributes:
        seconds: of copies into slots of even and of odd number.
    """

    seconds: tuple[float, float]

    def open(self, like: Any) -> HostSlots:
        """No states yet."""
        return HostSlots({}, Copier.start())

    def put(self, handle: HostSlots, slot: int, state: Any) -> None:
        """Copies to the host, slowly, while the caller goes on."""
        copy = HostCopy.begun(state)

        def job() -> None:
            arrived = copy.arrived()
            time.sleep(self.seconds[slot % 2])
            handle.copies[slot] = arrived

        handle.copier.begin(job)

    def get(self, handle: HostSlots, slot: int) -> Any:
        """Copies to the device, slowly."""
        TURNED.append(time.perf_counter())
        handle.copier.wait()
        time.sleep(self.seconds[slot % 2])
        return handle.copies[slot].state()

    def close(self, handle: HostSlots) -> None:
        """Forgets all."""
        handle.copier.stop()


def problem(steps: int) -> tuple[rfho.Problem, Any]:
    """A step of products that one core is busy with."""

    def step(w: Any, hyper: Any, batch: Any) -> Any:
        return hyper * jnp.tanh(w @ batch)

    start = jnp.full((SIZE, SIZE), 0.1)
    dynamics = rfho.Dynamics(lambda hyper: start, step)
    asked = rfho.Problem(
        dynamics,
        lambda w, hyper, batch: jnp.sum(w),
        train=jnp.eye(SIZE) * 0.9,
        horizon=steps * SEGMENTS,
    )
    return asked, jnp.asarray(0.99)


def run(steps: int, *seconds: float) -> tuple[float, float]:
    """Seconds of the way forward and of the way back, with copies that take so many."""
    asked, hyper = problem(steps)
    moment = asked.at(0)
    method = rfho.LongReverseHyperGradient(steps, shelf=Slow((seconds[0], seconds[-1])))
    TURNED.clear()
    begun = time.perf_counter()
    jax.block_until_ready(method.estimate(moment, hyper, None)[0].hypergradient)
    return TURNED[0] - begun, time.perf_counter() - TURNED[0]


def main(share: float = 0.5, uneven: float = 0.0, steps: float = 400) -> None:
    """Prints a line for each way."""
    go = functools.partial(run, int(steps))
    go(0.0)
    segment = min(go(0.0)[0] for _ in range(3)) / SEGMENTS
    copies = SEGMENTS * share * segment
    each = share * segment * (1 - uneven), share * segment * (1 + uneven)
    runs = [(go(0.0), go(*each)) for _ in range(REPEATS)]
    for way, name in enumerate(("laying down", "taking up")):
        without, with_copies = (min(one[kind][way] for one in runs) for kind in (0, 1))
        hidden = 100 - 100 * (with_copies - without) / copies
        print(
            f"{name}: {SEGMENTS} segments of {segment:.3f} s forward, {without:.2f} s without copies, "
            f"{with_copies:.2f} s with {copies:.2f} s of them: {hidden:.0f} % hidden"
        )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
