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

import numpy as np

from benchmarks.bilevel.ours import METHODS, as_peer
from benchmarks.bilevel.problems import TASKS, Task
from benchmarks.bilevel.race import Found, raced
from benchmarks.bilevel.recursive import PEERS
from benchmarks.bilevel.value import measure_of


def row(name: str, found: Found) -> str:
    """Of the page's table."""
    gaps = " | ".join(f"{gap:.2e}" for gap in found.gaps)
    rates = f"{found.rates.inner:g} | {found.rates.outer:g}"
    return f"| {name} | {gaps} | {found.worst:.2e} | {rates} | {found.steps} |"


def head(seconds: tuple[float, ...]) -> str:
    """Of the page's table."""
    columns = [f"{second:g} s" for second in seconds]
    cells = ["method", *columns, "worst", "inner rate", "outer rate", "outer steps"]
    return "| " + " | ".join(cells) + " |\n|" + "---|" * len(cells)


def race(task: Task, words: list[str], seconds: tuple[float, ...], runs: int) -> None:
    """Prints a row for each method."""
    measure = measure_of(task)
    print(
        f"at the start {measure(np.asarray(task.x), np.asarray(task.w)):.2e}\n\n{head(seconds)}",
        flush=True,
    )
    entries = {
        f"rfho: {name}": lambda make=make: as_peer(make, task) for name, make in METHODS.items()
    }
    entries |= {
        f"{name}, written from its paper": lambda peer=peer: peer(task.sides)
        for name, peer in PEERS.items()
    }
    for name, peer in entries.items():
        if not words or any(word in name for word in words):
            found = raced(peer(), task, measure, seconds=seconds, runs=runs)
            print(row(name, found), flush=True)


def main() -> None:
    """Prints a table for each problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bilevel", description=__doc__)
    parser.add_argument("words", nargs="*", help="methods in whose names one of these words is")
    parser.add_argument("--problem", action="append", choices=TASKS, help="all by default")
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.5, 1.0])
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    for name in given.problem or TASKS:
        task = TASKS[name]()
        print(f"\n{name}: {TASKS[name].__doc__}\n", flush=True)
        race(task, given.words, tuple(given.seconds), given.runs)


if __name__ == "__main__":
    main()
