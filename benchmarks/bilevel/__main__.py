"""``python -m benchmarks.bilevel``: rfho's single-loop methods beside stochastic methods of bilevel optimisation.

The problems are those of benchmark_bilevel, batches of 64. What is told is how far h(x) = f(w*(x), x) is from its
minimum after so many CPU seconds of outer steps, without compilation; for covtype, and data cleaning with --error,
the share of test examples that are wrong, as there. Medians over several runs, each at the rates that were best at
the first of those times in a run of their own. The data are in the folder that RFHO_DATA names;
`docs/explanation/bilevel.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from benchmarks.bilevel.ours import METHODS, as_peer, of_its_own, on_all_data
from benchmarks.bilevel.peers import Peer, under
from benchmarks.bilevel.problems import TASKS, Task, grid
from benchmarks.bilevel.race import Found, raced
from benchmarks.bilevel.recursive import PEERS
from benchmarks.bilevel.value import measure_of


def row(name: str, found: Found) -> str:
    """Of the page's table."""
    gaps = " | ".join(f"{gap:.2e}" for gap in found.gaps)
    rates = "– | –" if found.rates is None else f"{found.rates.inner:g} | {found.rates.outer:g}"
    return f"| {name} | {gaps} | {found.worst:.2e} | {rates} | {found.steps} |"


def head(seconds: tuple[float, ...]) -> str:
    """Of the page's table."""
    columns = [f"{second:g} s" for second in seconds]
    cells = ["method", *columns, "worst", "inner rate", "outer rate", "outer steps"]
    return "| " + " | ".join(cells) + " |\n|" + "---|" * len(cells)


OUTSIDE: dict[str, tuple[Any, str, tuple[float, ...]]] = {
    "adam": (optax.adam, "Adam", (0.03, 0.3)),
    "sign": (optax.sign_sgd, "signs", (0.3, 2.0)),
}
"""Another optimiser outside, how a row calls it, and its rates."""


def entrants(task: Task, *, outside: str | None) -> dict[str, Callable[[], Peer]]:
    """Ours and theirs by name; theirs alone with another optimiser outside."""
    if outside is not None:
        optim, called, _ = OUTSIDE[outside]
        return {
            f"{name}, written from its paper, {called} outside": lambda peer=peer: under(
                peer(task.sides), optim, task.bounds
            )
            for name, peer in PEERS.items()
        }
    entries = {
        f"rfho: {name}": lambda make=make: as_peer(make, task) for name, make in METHODS.items()
    }
    entries["rfho: Implicit on all data (HOAG)"] = lambda: on_all_data(task)
    entries |= {f"rfho: {name}": make for name, make in of_its_own(task).items()}
    return entries | {
        f"{name}, written from its paper": lambda peer=peer: peer(task.sides)
        for name, peer in PEERS.items()
    }


def race(
    task: Task,
    words: list[str],
    seconds: tuple[float, ...],
    runs: int,
    *,
    outside: str | None,
    error: bool,
) -> None:
    """Prints a row for each method."""
    if outside is not None:
        inner = {one.inner: None for one in task.rates}
        task = task._replace(rates=grid(tuple(inner), OUTSIDE[outside][2]))
    measure = measure_of(task, error=error)
    print(
        f"at the start {measure(np.asarray(task.x), np.asarray(task.w)):.2e}\n\n{head(seconds)}",
        flush=True,
    )
    for name, peer in entrants(task, outside=outside).items():
        if not words or any(word in name for word in words):
            found = raced(peer(), task, measure, seconds=seconds, runs=runs)
            print(row(name, found), flush=True)


def main() -> None:
    """Prints a table for each problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bilevel", description=__doc__)
    parser.add_argument("words", nargs="*", help="methods in whose names one of these words is")
    parser.add_argument("--problem", action="append", choices=TASKS, help="all by default")
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.5, 1.0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--outside", choices=OUTSIDE, help="opponents alone, with this outside")
    parser.add_argument("--batch", type=int, help="the opponents' and ours, if not 64")
    parser.add_argument("--error", action="store_true", help="on test examples, where there are")
    given = parser.parse_args()
    for name in given.problem or TASKS:
        task = TASKS[name]()
        task = task if given.batch is None else task.sized(given.batch)
        print(f"\n{name}: {TASKS[name].__doc__}\n", flush=True)
        told = {"outside": given.outside, "error": given.error}
        race(task, given.words, tuple(given.seconds), given.runs, **told)


if __name__ == "__main__":
    main()
