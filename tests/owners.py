"""Many processes that want one folder at the same moment: a program for `test_run_folder`.

    python owners.py FOLDER PROCESSES ROUNDS

prints for each round how many of them got it. Half of the rounds begin with a dead owner.
"""

import os
import signal
import sys
import time
import warnings
from pathlib import Path

from rfho.runs.owner import RunFolderError, claim
from rfho.runs.run_folder import create_run_folder


def contend(folder: Path, begin: float, answers: int, *, fresh: bool) -> None:
    """One of the processes: it lives until it is killed, so that nobody takes a dead one's place."""
    while time.time() < begin:
        pass
    try:
        create_run_folder("toy", folder) if fresh else claim(folder)
        os.write(answers, b"1")
    except RunFolderError:
        os.write(answers, b"0")
    time.sleep(60)


def started(folder: Path, begin: float, answers: int, *, fresh: bool) -> int:
    child = os.fork()
    if child == 0:
        contend(folder, begin, answers, fresh=fresh)
        os._exit(0)
    return child


def round_of(folder: Path, processes: int, *, fresh: bool) -> int:
    """How many of the processes became owners."""
    reading, answers = os.pipe()
    if not fresh:
        folder.mkdir()
        first = started(folder, 0.0, answers, fresh=False)
        assert os.read(reading, 1) == b"1"
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    begin = time.time() + 0.05
    children = [started(folder, begin, answers, fresh=fresh) for _ in range(processes)]
    said = b""
    while len(said) < processes:
        said += os.read(reading, processes)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(reading)
    os.close(answers)
    return said.count(b"1")


def main() -> None:
    folder, processes, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")  # JAX does not like forks, but none of the children computes
    counts = [
        round_of(folder / str(number), processes, fresh=number % 2 == 0) for number in range(rounds)
    ]
    sys.stdout.write(" ".join(map(str, counts)))


if __name__ == "__main__":
    main()
