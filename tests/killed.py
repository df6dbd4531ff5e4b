"""A process that is killed with -9 again and again while it works, for tests of what it leaves.

    python killed.py MODULE:FUNCTION FOLDER KILLS

imports the function once, and then runs it on the folder in one forked process after the other, each of
which is killed after a random time. After each kill ``MODULE:check`` looks at the folder.
"""

import importlib
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).parent


def kill_again_and_again(function: str, folder: Path, kills: int, *, longest: float) -> None:
    """Runs this file as a program of its own, and passes on what it found."""
    command = [sys.executable, __file__, function, str(folder), str(kills), str(longest)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{kills} kills"


def main() -> None:
    name, folder, kills, longest = sys.argv[1:]
    module = importlib.import_module(name.partition(":")[0])
    work = getattr(module, name.partition(":")[2])
    draw = random.Random(0)
    warnings.simplefilter("ignore")  # JAX does not like forks, but none of the children computes
    for _ in range(int(kills)):
        child = os.fork()
        if child == 0:
            work(Path(folder))
            os._exit(0)
        time.sleep(draw.uniform(0, float(longest)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        module.check(Path(folder))
    sys.stdout.write(f"{kills} kills\n")


if __name__ == "__main__":
    main()
