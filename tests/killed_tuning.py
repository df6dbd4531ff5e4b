"""Tuning runs that are killed with -9 in every phase, or told to stop, and what they leave.

    python killed_tuning.py kill FOLDER CYCLES
    python killed_tuning.py stop FOLDER ROUNDS SIGNAL SIGNALS

A program of its own, which imports everything once and forks a child for each run, before JAX has begun
anything. ``kill`` kills one child after the other on the same folder, each in another phase, lets the last
one end, and compares its result with that of a run that nobody killed. ``stop`` sends SIGNAL, once or twice,
at a random moment from the first line of `rfho.tune` to its last. Both print a line for each round.
"""

import collections
import contextlib
import datetime
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from tuned_runs import DOMAIN, METHODS, OPTIM, digest, hyper, problem, tune

import rfho
from rfho.outer import snapshot
from rfho.runs import keeper, run, sweeps
from rfho.runs.report import render
from rfho.runs.run_folder import RunFolder

PHASES = (
    "start",
    "compilation",
    "step",
    "sweep back",
    "page",
    "save",
    "clean-up",
    "end",
    "report",
)
SHORT = ("sweep back", "clean-up")
"""A page comes after each segment, and a clean-up is a few files: killed as soon as they are seen."""
METHOD, STEPS = "long reverse", 14
ALWAYS = datetime.timedelta(0)
"""A snapshot after every step, and within it after every segment."""
IN_TUNE, ENDED = 100, 101
PROMISED = 20.0
"""Seconds from a signal to the end, most of which compilation takes: it is not interrupted."""


class Phase(rfho.Listener):
    """Writes down in shared memory in which phase a child is."""

    def __init__(self, shared: mmap.mmap) -> None:
        self.shared = shared

    def __call__(self, name: str) -> None:
        self.shared[0] = PHASES.index(name)

    def start(self, start) -> None:
        self("compilation")

    def step(self, report) -> None:
        self("step")

    def segment(self, done: int, total: int) -> None:
        self("sweep back" if 3 * done > total else "step")

    def close(self, result) -> None:
        self("report")

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Notes what has no event, too."""
        self("start")
        self.within(keeper, "save_snapshot", "save")
        self.within(sweeps, "save_snapshot", "page")
        self.within(snapshot, "_tidy", "clean-up")
        self.within(run, "write_report", "report")
        yield

    def within(self, module, name: str, phase: str) -> None:
        true = getattr(module, name)

        def noted(*args, **named):
            before, self.shared[0] = self.shared[0], PHASES.index(phase)
            try:
                return true(*args, **named)
            finally:
                self.shared[0] = before

        setattr(module, name, noted)


def forked(work: Callable[[], int]) -> int:
    """A child that does the work, and ends with its code; 99 if something escapes."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        jax.config.update("jax_enable_x64", True)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def tuned(folder: Path, shared: mmap.mmap) -> int:
    """A run in the folder, to its end."""
    phase = Phase(shared)
    with phase.noted():
        solution = tune(
            METHOD, steps=STEPS, run=rfho.Run(folder / "run", every=ALWAYS), listeners=[phase]
        )
        phase("end")
    (folder / "result").write_text(digest(solution))
    return 0


def plain(folder: Path) -> int:
    (folder / "result").write_text(digest(tune(METHOD, steps=STEPS)))
    return 0


def killed(folder: Path, shared: mmap.mmap, phase: str, draw: random.Random) -> str:
    """A child that is killed in a phase; gives the phase, or "" if it ended before."""
    shared[0] = 0
    child = forked(lambda: tuned(folder, shared))
    while shared[0] != PHASES.index(phase):
        if os.waitpid(child, os.WNOHANG)[0]:
            return ""
        time.sleep(2e-4)
    if phase not in SHORT:
        time.sleep(draw.expovariate(1 / 1e-3))
    at = PHASES[shared[0]]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return at


def look(folder: Path) -> None:
    """That the folder can be read, and has neither a gap nor a step twice."""
    path = folder / "run"
    if not (path / "run.json").exists():
        return
    found = RunFolder(path)
    steps = [row["step"] for row in found.history()]
    assert steps == list(range(1, len(steps) + 1)), steps
    assert found.about().status in ("killed", "finished"), found.about().status
    assert "<h1>" in render(found)


def kill(folder: Path, cycles: int) -> None:
    shared, draw = mmap.mmap(-1, 1), random.Random(0)
    os.waitpid(forked(lambda: plain(folder)), 0)
    expected = (folder / "result").read_text()
    hit: collections.Counter[str] = collections.Counter()
    for cycle in range(cycles + 40):
        # The short phases may be missed for some time on a busy machine: after the cycles, those alone.
        phases = [phase for phase in PHASES if cycle < cycles or not hit[phase]]
        if not phases:
            break
        for phase in phases:
            hit[killed(folder, shared, phase, draw)] += 1
            look(folder)
        (folder / "result").unlink(missing_ok=True)
        _, status = os.waitpid(forked(lambda: tuned(folder, shared)), 0)
        assert status == 0, status
        look(folder)
        assert [row["step"] for row in RunFolder(folder / "run").history()][-1] == STEPS
        same = (folder / "result").read_text() == expected
        print("same" if same else "other", flush=True)  # noqa: T201
        shutil.rmtree(folder / "run")
    print(dict(hit), file=sys.stderr)  # noqa: T201
    assert all(hit[phase] for phase in PHASES), hit


def stopped(folder: Path, shared: mmap.mmap, number: int) -> int:
    """A run that is told to stop: the exit code of the child."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    given = problem(), hyper()
    how = {"method": METHODS[METHOD](), "optim": OPTIM, "domain": DOMAIN, "steps": 10**4}
    run_of_it = rfho.Run(folder / "run", every=1)
    shared[0] = IN_TUNE
    try:
        solution = rfho.tune(*given, run=run_of_it, **how)
    except SystemExit as error:
        return int(str(error.code))
    finally:
        shared[0] = ENDED
    assert number == signal.SIGINT
    assert solution.result is rfho.Result.STOPPED, solution.result
    (folder / "steps").write_text(str(len(solution.history)))
    return 128 + number


def stop(folder: Path, rounds: int, number: int, signals: int) -> None:
    shared, draw = mmap.mmap(-1, 1), random.Random(1)
    for _ in range(rounds):
        shared[0] = 0
        child = forked(lambda: stopped(folder, shared, number))
        while shared[0] != IN_TUNE:
            time.sleep(1e-3)
        time.sleep(draw.uniform(0.01, 4.0))
        begin = time.monotonic()
        for again in range(signals):
            if not again or shared[0] == IN_TUNE:
                os.kill(child, number)
                time.sleep(draw.uniform(0, 0.3))
        _, status = os.waitpid(child, 0)
        seconds = time.monotonic() - begin
        code = os.waitstatus_to_exitcode(status)
        told = (
            RunFolder(folder / "run").about().status
            if (folder / "run" / "run.json").exists()
            else ""
        )
        right = (
            code in (128 + number, -number) and seconds < PROMISED and told in ("", "interrupted")
        )
        print("right" if right else f"wrong: {code}, {seconds:.1f} s, {told}", flush=True)  # noqa: T201
        if (folder / "run" / "run.json").exists():
            steps = [row["step"] for row in RunFolder(folder / "run").history()]
            assert steps == list(range(1, len(steps) + 1)), steps


def main() -> None:
    warnings.simplefilter("ignore")  # JAX does not like forks, but the parent never computes
    what, folder, *rest = sys.argv[1:]
    {"kill": kill, "stop": stop}[what](Path(folder), *map(int, rest))


if __name__ == "__main__":
    main()
