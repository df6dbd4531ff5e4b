"""Runs the PyTorch programs in an environment of their own, takes turns with them, and stores what all took."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import rfho
from benchmarks.measure import Ready, by, plain
from benchmarks.peers.export import shared
from benchmarks.problems import Benchmark
from benchmarks.suite import RESULTS, device
from rfho.hyper_gradients import ReverseHyperGradient

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".venv-peers"


def run() -> None:
    """Makes the environment if it is missing, exports the problems, runs the peers."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        _make_environment(python)
    with tempfile.TemporaryDirectory() as folder:
        problems, results = f"{folder}/problems.npz", f"{folder}/results.json"
        export = [sys.executable, "-m", "benchmarks.peers.export", problems]
        subprocess.run(export, env={**os.environ, "JAX_ENABLE_X64": "1"}, check=True)
        ours = {benchmark.name: _Ours(benchmark) for benchmark in shared()}
        _take_turns([str(python), str(HERE / "torch_peers.py"), problems, results], ours)
        measured = json.loads(Path(results).read_text())
    measured["rows"] += [row for one in ours.values() for row in one.rows()]
    RESULTS.mkdir(exist_ok=True)
    stored = {**measured, "device": device()}
    (RESULTS / "cpu-peers.json").write_text(json.dumps(stored, indent=1) + "\n")


_POLICIES = {
    "P1": rfho.StoreAll(rfho.Keep.RESIDUALS),
    "P2": rfho.StoreAll(rfho.Keep.RESIDUALS),
    "P3": rfho.StoreAll(),
}


class _Ours:
    """Plain training and a hypergradient of one problem in JAX."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.name, problem, hyper = benchmark
        method = ReverseHyperGradient(_POLICIES[self.name])
        programs = {"plain training in JAX": plain(), "rfho": by(method, problem, hyper)}
        self.ready = {name: Ready(program, problem, hyper) for name, program in programs.items()}
        self.times: dict[str, list[float]] = {name: [] for name in programs}

    def take_turn(self) -> None:
        for name, program in self.ready.items():
            self.times[name].append(program.seconds())

    def rows(self) -> list[dict[str, Any]]:
        medians = {name: statistics.median(times) for name, times in self.times.items()}
        base = medians["plain training in JAX"]
        return [
            {"problem": self.name, "name": name, "seconds": seconds, "ratio": seconds / base}
            for name, seconds in medians.items()
        ]


def _take_turns(peers: list[str], ours: dict[str, _Ours]) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(peers, stdin=pipe, stdout=pipe, text=True) as process:
        for line in process.stdout:
            match line.split():
                case ["turn", name]:
                    ours[name].take_turn()
                    print(file=process.stdin, flush=True)
                case _:
                    print(line, end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, peers)


def _make_environment(python: Path) -> None:
    """All of it or nothing: half an environment would pass for a whole one the next time."""
    try:
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        subprocess.run(pip, check=True)
    except BaseException:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        raise
