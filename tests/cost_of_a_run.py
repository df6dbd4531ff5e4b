"""CPU seconds that a folder and a listener add to an outer step; prints them.

python cost_of_a_run.py FOLDER
"""

import datetime
import statistics
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import optax

import rfho
from rfho.tracking import JsonLines

OPTIM = optax.sgd(1e-3)
HOUR = datetime.timedelta(hours=1)


class Seconds(rfho.Listener):
    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, report) -> None:
        self.times.append(time.process_time())


def per_step(problem: rfho.Problem, *listeners: rfho.Listener, **how) -> float:
    """The median over the outer steps."""
    seconds = Seconds()
    rfho.tune(problem, 1.0, optim=OPTIM, steps=400, listeners=[seconds, *listeners], **how)
    pairs = zip(seconds.times, seconds.times[1:], strict=False)
    return statistics.median(after - before for before, after in pairs)


def main() -> None:
    dynamics = rfho.Descent(lambda w, h, b: (w - h) ** 2, lambda h: optax.sgd(0.1), jnp.zeros(()))
    problem = rfho.Problem(dynamics, lambda w, h, b: w**2, horizon=1)
    kept, plain = [], []
    for i in range(8):
        folder = Path(sys.argv[1]) / str(i)
        lines = JsonLines(folder.with_suffix(".jsonl"))
        kept.append(per_step(problem, lines, run=rfho.Run(folder, every=HOUR)))
        plain.append(per_step(problem))
    # Other processes can only add to it.
    sys.stdout.write(f"{min(kept) - min(plain)}\n")


if __name__ == "__main__":
    main()
