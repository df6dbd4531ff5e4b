"""Runs the PyTorch programs in an environment of their own, and stores what they took."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.suite import RESULTS, device

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
        subprocess.run([python, HERE / "torch_peers.py", problems, results], check=True)
        measured = json.loads(Path(results).read_text())
    RESULTS.mkdir(exist_ok=True)
    stored = {**measured, "device": device()}
    (RESULTS / "cpu-peers.json").write_text(json.dumps(stored, indent=1) + "\n")


def _make_environment(python: Path) -> None:
    """All of it or nothing: half an environment would pass for a whole one the next time."""
    try:
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        subprocess.run(pip, check=True)
    except BaseException:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        raise
