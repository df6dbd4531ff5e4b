"""``python -m benchmarks.bilevel``: rfho's single-loop methods beside stochastic methods of bilevel optimisation.

The problems are those of benchmark_bilevel, batches of 64. What is told is how far h(x) = f(w*(x), x) is from its
minimum after so many CPU seconds of outer steps, without compilation; for covtype and data cleaning, as there, the
share of test examples that are wrong. Medians over several runs, each at the rates that were best at the first of
those times in a run of their own. The data are in the folder that RFHO_DATA names;
`docs/explanation/bilevel.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import argparse
from collections.abc import Callable

import numpy as np
import optax

from benchmarks.bilevel.ours import METHODS, as_peer, on_all_data
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


def entrants(task: Task, *, adam: bool) -> dict[str, Callable[[], Peer]]:
    """Ours and theirs by name."""
    if adam:
        return {
            f"{name}, written from its paper, Adam outside": lambda peer=peer: under(
                peer(task.sides), optax.adam
            )
            for name, peer in PEERS.items()
        }
    entries = {
        f"rfho: {name}": lambda make=make: as_peer(make, task) for name, make in METHODS.items()
    }
    entries["rfho: Implicit on all data (HOAG)"] = lambda: on_all_data(task)
    return entries | {
        f"{name}, written from its paper": lambda peer=peer: peer(task.sides)
        for name, peer in PEERS.items()
    }


def race(
    task: Task, words: list[str], seconds: tuple[float, ...], runs: int, *, adam: bool
) -> None:
    """Prints a row for each method."""
    if adam:
        inner = {one.inner: None for one in task.rates}
        task = task._replace(rates=grid(tuple(inner), (0.03, 0.3)))
    measure = measure_of(task)
    print(
        f"at the start {measure(np.asarray(task.x), np.asarray(task.w)):.2e}\n\n{head(seconds)}",
        flush=True,
    )
    for name, peer in entrants(task, adam=adam).items():
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
    parser.add_argument("--adam", action="store_true", help="opponents alone, with Adam outside")
    given = parser.parse_args()
    for name in given.problem or TASKS:
        task = TASKS[name]()
        print(f"\n{name}: {TASKS[name].__doc__}\n", flush=True)
        race(task, given.words, tuple(given.seconds), given.runs, adam=given.adam)


if __name__ == "__main__":
    main()
