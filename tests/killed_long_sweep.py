"""A tuning run over a very long horizon, killed with -9 in the middle of its sweep back, and gone on with.

    python killed_long_sweep.py FOLDER HORIZON

A program of its own, which imports everything once and forks each run, before JAX has begun anything: one that
nobody kills, one that is killed, and one in the folder of that. Prints after which segments it was killed and
gone on with, and in the last line whether every bit of the solution but the seconds came out the same.
"""

import datetime
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import optax
from tuned_runs import digest

import rfho
from benchmarks.problems import small_network

METHOD = rfho.LongReverseHyperGradient(1000, slots=10)
HORIZON_OF_A_SECOND = 1e5
"""A page of the sweep is kept every second where the horizon is so long."""


class Told(rfho.Listener):
    """Writes down how many of the segments there and back are done."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def segment(self, done: int, total: int) -> None:
        with self.place.open("a") as lines:
            lines.write(f"{done} {total}\n")


def told(place: Path) -> list[tuple[int, int]]:
    """What was written down, but a line that was cut off."""
    lines = place.read_text().split("\n")[:-1] if place.exists() else []
    return [(int(done), int(total)) for done, total in map(str.split, lines)]


def tuned(folder: Path, horizon: int, place: Path) -> None:
    """One outer step, and a digest of what it came to."""
    _, problem, hyper = small_network(horizon)
    solution = rfho.tune(
        problem,
        hyper,
        method=METHOD,
        optim=optax.sgd(1e-3),
        steps=1,
        run=rfho.Run(
            folder, every=datetime.timedelta(seconds=horizon / HORIZON_OF_A_SECOND), title="long"
        ),
        listeners=[Told(place)],
    )
    place.with_suffix(".json").write_text(json.dumps([str(solution.hyper), digest(solution)]))


def forked(work: Callable[[], None]) -> int:
    """A child that does the work."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finished(work: Callable[[], None]) -> None:
    """Until a child has done the work."""
    _, status = os.waitpid(forked(work), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"a run ended with {os.waitstatus_to_exitcode(status)}")


def killed(folder: Path, horizon: int, place: Path) -> int:
    """After how many segments a child was killed: halfway back, with a page of the sweep there."""
    child = forked(lambda: tuned(folder, horizon, place))
    while True:
        done, total = next(reversed(told(place)), (0, 1))
        if 3 * done >= 2 * total and (folder / "sweep" / "way-back").exists():
            os.kill(child, signal.SIGKILL)
        elif os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
            continue
        else:
            sys.exit("the run to be killed ended before")
        os.waitpid(child, 0)
        return next(reversed(told(place)))[0]


def main() -> None:
    """One round."""
    root, horizon = Path(sys.argv[1]), int(float(sys.argv[2]))
    whole, part, rest = (root / name for name in ("whole", "part", "rest"))
    finished(lambda: tuned(root / "uninterrupted", horizon, whole))
    at = killed(root / "interrupted", horizon, part)
    finished(lambda: tuned(root / "interrupted", horizon, rest))
    segments = told(whole)[-1][1] // 3
    back = [done for done, _ in told(rest) if done > segments]
    say = sys.stdout.write
    say(f"killed after {at} of {3 * segments}, gone on after {back[0] - 2}\n")
    hyper, expected = json.loads(whole.with_suffix(".json").read_text())
    _, found = json.loads(rest.with_suffix(".json").read_text())
    later = back[0] - 2 > segments
    say(f"{hyper}\n{'same' if found == expected and later else 'different'}\n")


if __name__ == "__main__":
    main()
