"""One method on one problem: where it stands after so many CPU seconds of outer steps."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.bilevel.peers import Peer, Rates
from benchmarks.bilevel.problems import Task
from benchmarks.bilevel.value import Measure
from rfho.outer.tuner import TunerState

LOOK = 0.1
"""CPU seconds between two looks at the clock."""


class Found(NamedTuple):
    """Of the runs at the best rates.

    Attributes:
        gaps: medians after each number of seconds.
        worst: the largest after the last of them.
        rates: the best of those that were tried; None if there are none.
        steps: outer steps, median.
    """

    gaps: tuple[float, ...]
    worst: float
    rates: Rates | None
    steps: int


class Seen(NamedTuple):
    """The outer variable, and the parameters that the loss has trained."""

    outer: np.ndarray
    params: np.ndarray


def seen_of(carry: Any, trained: int) -> Seen:
    """What is told of a carry, ours or an opponent's."""
    if not isinstance(carry, TunerState):
        return Seen(np.asarray(carry[0], np.float64), np.asarray(carry[trained]))
    states = jax.tree.leaves(carry.carry, is_leaf=lambda node: hasattr(node, "params"))
    state = next(node for node in states if hasattr(node, "params"))
    return Seen(np.asarray(carry.free, np.float64), np.asarray(state.params))


class Racer:
    """A method compiled once, for all rates and keys."""

    def __init__(self, peer: Peer, task: Task) -> None:
        self.begin, self.trained = peer.start(task.x, task.w), peer.trained

        @jax.jit
        def stretch(carry: Any, key: jax.Array, rates: Any, count: Any) -> Any:
            def step(i: Any, carry: Any) -> Any:
                return peer.step(carry, jax.random.fold_in(key, i), Rates(*rates))

            return jax.lax.fori_loop(0, count, step, carry)

        self.stretch = stretch
        jax.block_until_ready(stretch(self.begin, jax.random.key(0), (0.0, 0.0), 1))

    def run(self, rates: Rates, seed: int, seconds: tuple[float, ...]) -> tuple[list[Seen], int]:
        """Where all stands after so many CPU seconds, and the outer steps done; stops where it is no number."""
        key = jax.random.key(seed)
        carry, steps, seen, spent, count = self.begin, 0, [], 0.0, 1
        for until in seconds:
            while spent < until:
                clock = time.process_time()
                drawn = jax.random.fold_in(key, steps)
                carry = jax.block_until_ready(self.stretch(carry, drawn, tuple(rates), count))
                took = time.process_time() - clock
                spent, steps = spent + took, steps + count
                count = max(1, int(count * min(LOOK / max(took, 1e-4), 10)))
                now = seen_of(carry, self.trained)
                if not np.isfinite(now.outer).all():
                    return [*seen, *[now] * (len(seconds) - len(seen))], steps
            seen.append(seen_of(carry, self.trained))
        return seen, steps


def raced(
    peer: Peer,
    task: Task,
    measure: Measure,
    *,
    seconds: tuple[float, ...],
    runs: int,
) -> Found:
    """The best rates by one run each, then several runs at those with other keys."""
    racer = Racer(peer, task)
    tried = task.rates if peer.rated else task.rates[:1]
    ends = [(measure(*racer.run(r, 0, seconds[:1])[0][-1]), r) for r in tried]
    _, rates = min(ends, key=lambda end: (not np.isfinite(end[0]), end[0]))
    gaps, steps = [], []
    for seed in range(1, runs + 1):
        seen, done = racer.run(rates, seed, seconds)
        gaps.append([measure(*one) for one in seen])
        steps.append(done)
    medians = tuple(float(median) for median in np.median(gaps, axis=0))
    best = rates if peer.rated else None
    return Found(medians, max(gap[-1] for gap in gaps), best, int(np.median(steps)))
