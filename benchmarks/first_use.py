"""``python -m benchmarks.first_use``: from `pip install` to the first result of the README's example, on a terminal.

Builds the wheel and the source distribution, and installs each into an empty environment, by pip and by uv, from a
folder of wheels that was filled before. There the README's example runs far from the checkout. Both write to a
pseudo-terminal, on which every byte has its time: what is asked for is a result within a minute and something on
the screen every two seconds. CPU seconds stand beside them, as other work on the machine stretches the others.
Needs a package index to fill the folder; FOLDER keeps it for the next time.
"""

import argparse
import itertools
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(r"<!-- example -->\n```python\n(.*?)```", re.DOTALL)
EXTRA = "cli"
"""What the README has its readers install."""

RESULT = "STEPS_DONE"
"""How the first result begins."""

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LIMIT, SILENCE = 60.0, 2.0


class Heard(NamedTuple):
    """What a command wrote to its terminal, and when.

    Attributes:
        seconds: how long it ran.
        cpu: CPU seconds of it and its children.
        chunks: the seconds since its start and the text of each piece.
    """

    seconds: float
    cpu: float
    chunks: list[tuple[float, str]]

    @property
    def begins(self) -> float:
        """When the first byte came."""
        return self.chunks[0][0] if self.chunks else self.seconds

    def silence(self, end: float) -> tuple[float, float, str]:
        """The longest time without a byte from the first to ``end``, its begin, and the line that stood there."""
        times = [*(moment for moment, _ in self.chunks if moment < end), end]
        longest, begin = max((b - a, a) for a, b in itertools.pairwise(times))
        before = "".join(text for moment, text in self.chunks if moment <= begin)
        lines = [line.strip() for line in re.split(r"[\r\n]+", ESCAPE.sub("", before))]
        return longest, begin, next((line for line in reversed(lines) if line), "")[:50]

    def until(self, words: str) -> float:
        """The seconds until ``words`` stood on the screen."""
        text = ""
        for moment, piece in self.chunks:
            text += piece
            if words in ESCAPE.sub("", text):
                return moment
        raise RuntimeError(f"{words} was never printed, but:\n{text}")


def heard(command: Sequence[str | Path], folder: Path) -> Heard:
    """Runs a command on a terminal of 100 columns, without what this process knows of the checkout."""
    known = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    environment = {name: value for name, value in os.environ.items() if name not in known}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    ours, theirs = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    chunks: list[tuple[float, str]] = []
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so that the other end is closed
            piece = b""
        if not piece:
            break
        chunks.append((time.perf_counter() - start, piece.decode(errors="replace")))
    os.close(ours)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if process.returncode is None:
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = "".join(text for _, text in chunks)
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{said}")
    return Heard(seconds, used.ru_utime + used.ru_stime, chunks)


def quietly(*command: str | Path, folder: Path | None = None) -> None:
    """Runs what is not measured; what it says is shown if it fails."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")


def prepared(folder: Path) -> tuple[Path, Path, Path, Path]:
    """The tools' environment, the folder of wheels, the wheel, the source distribution."""
    tools, house, dist = folder / "tools", folder / "wheels", folder / "dist"
    python = tools / "bin" / "python"
    if not python.exists():
        quietly(sys.executable, "-m", "venv", tools)
        quietly(python, "-m", "pip", "install", "hatchling", "uv")
    quietly(python, "-m", "hatchling", "build", "-d", dist, folder=ROOT)
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    if not house.exists():
        wanted = f"rfho[{EXTRA}] @ {wheel.as_uri()}"
        quietly(python, "-m", "pip", "download", "--dest", house, wanted, "hatchling")
        for copy in house.glob("rfho-*"):
            copy.unlink()  # what is installed is what was just built
    return tools, house, wheel, source


def kind_of(archive: Path) -> str:
    """What it is called."""
    return "wheel" if archive.suffix == ".whl" else "sdist"


def measured(installer: str, archive: Path, folder: Path, tools: Path, house: Path) -> list[str]:
    """A row of the table: installs into an empty environment, and runs the example there."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        python = here / "env" / "bin" / "python"
        wanted = f"rfho[{EXTRA}] @ {archive.as_uri()}"
        options = ["--no-index", "--find-links", house, wanted]
        if installer == "uv":
            quietly(tools / "bin" / "uv", "venv", "--python", sys.executable, here / "env")
            install = [tools / "bin" / "uv", "pip", "install", "--python", python, *options]
        else:
            quietly(sys.executable, "-m", "venv", here / "env")
            install = [python, "-m", "pip", "install", *options]
        (example,) = EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
        (here / "example.py").write_text(example, encoding="utf-8")
        installed = heard(install, here)
        ran = heard([python, "example.py"], here)
    first = ran.until(RESULT)
    theirs, ours = installed.silence(installed.seconds), ran.silence(first)
    print(f"{installer}, {archive.name}:")
    print(f"  installing {installed.seconds:.1f} s, silent {theirs[0]:.1f} s after “{theirs[2]}”")
    print(f"  importing {ran.begins:.1f} s, result after {first:.1f} s, ", end="")
    print(f"silent {ours[0]:.1f} s from {ours[1]:.1f} s on, after “{ours[2]}”", flush=True)
    total = installed.seconds + first
    cpu = installed.cpu + ran.cpu
    numbers = (installed.seconds, theirs[0], first, ran.begins, ours[0], total, cpu)
    return [installer, kind_of(archive), *(f"{number:.1f}" for number in numbers)]


def main() -> None:
    """Prints a table, and whether what is asked for is reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_use", description=__doc__)
    parser.add_argument("folder", nargs="?", help="keeps the tools and the wheels")
    parser.add_argument("--only", help="pip, uv, wheel, sdist; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.folder or name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        tools, house, *archives = prepared(folder)
        rows = [
            measured(installer, archive, folder, tools, house)
            for installer in ("pip", "uv")
            for archive in archives
            if options.only in (None, installer, kind_of(archive))
        ]
    head = [
        "by",
        "of",
        "install s",
        "silent s",
        "example s",
        "import s",
        "silent s",
        "total s",
        "CPU s",
    ]
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    slowest, quiet = (max(float(row[column]) for row in rows) for column in (7, 6))
    print(f"\nfirst result after {slowest:.1f} s at most, asked {LIMIT:.0f} s; ", end="")
    print(
        f"once it is imported the example is silent for {quiet:.1f} s at most, asked {SILENCE:.0f} s"
    )


if __name__ == "__main__":
    main()
