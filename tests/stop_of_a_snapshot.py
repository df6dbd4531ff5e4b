"""How long the loop stands still while a snapshot of 100 MB is taken; prints milliseconds.

python stop_of_a_snapshot.py FOLDER

The median of all calls in which the loop saves, and the longest; then of a copy of as many bytes to the host, and of
the writing, which goes on beside the loop.
"""

import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from rfho.runs import keeper

NUMBERS = 25_000_000
"""Of four bytes each: the trained parameters of the best step."""


class Timed(rfho.Run):
    """Notes how long each save stops the loop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, every=1, keep=1)
        self.seconds: list[float] = []

    def keep(self, standings, *, last: bool) -> None:
        if self._opened.keeper._saving is not None:
            self._opened.keeper._saving.exception()  # the writing of the last one is not what is timed
        begin = time.perf_counter()
        super().keep(standings, last=False)
        self.seconds.append(time.perf_counter() - begin)


def milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.1f} (at most {1e3 * max(seconds):.1f})"


def main() -> None:
    written: list[float] = []
    true = keeper.save_snapshot

    def save(*args, **named):
        begin = time.perf_counter()
        number = true(*args, **named)
        written.append(time.perf_counter() - begin)
        return number

    keeper.save_snapshot = save
    params = jnp.zeros(NUMBERS, jnp.float32)
    loss = lambda w, hyper, batch: hyper["goal"] * jnp.mean(w)  # noqa: E731
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), params)
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.mean((w - 1) ** 2), horizon=1)
    run = Timed(Path(sys.argv[1]))
    # Every step is the best so far, so that each snapshot has new parameters.
    rfho.tune(problem, {"lr": 0.1, "goal": -1.0}, optim=optax.sgd(1.0), steps=12, run=run)
    copies = []
    for _ in range(10):
        array = jax.block_until_ready(params + 1)
        begin = time.perf_counter()
        np.array(array)
        copies.append(time.perf_counter() - begin)
    sys.stdout.write(
        f"stopped {milliseconds(run.seconds[1:])}, copied {milliseconds(copies)}, "
        f"written {milliseconds(written)}\n"
    )


if __name__ == "__main__":
    main()
