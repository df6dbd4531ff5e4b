"""Runs that are told to stop within a long program, once or twice, and what they leave.

    python waiting.py FOLDER METHOD SIGNAL SIGNALS

A program of its own, which imports everything once and forks the run, before JAX has begun anything. From its
second outer step on the objective takes some seconds, or for ever where two signals are sent. Prints how the
run ended, after how many seconds, and what it left.
"""

import atexit
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import rfho
from rfho.runs.run_folder import RunFolder

FIRST, LONGER, ENDLESS = 20_000, 200_000, 2**31 - 1
"""Rounds, of which a thousand take some 10 to 30 ms: the second step is to last until the signal comes."""
LONG = rfho.LongReverseHyperGradient(segment=2)
METHODS = {
    "reverse": rfho.ReverseHyperGradient(),
    "forward": rfho.ForwardHyperGradient(),
    "real time": rfho.RealTimeHyperGradient(every=2),
    "long reverse": LONG,
    "warm restart": rfho.WarmRestartHyperGradient(LONG),
}


def loss(w, hyper, batch):
    return hyper * jnp.sum((w - 1) ** 2)


def objective(w, hyper, late):
    return jnp.sum(w**2) + 0.0 * late


def lasting(rounds):
    """An objective's data, for which so much is computed from the second outer step on."""

    def valid(k):
        many = jnp.where(k == 0, FIRST, rounds)
        return jnp.sum(jax.lax.fori_loop(0, many, lambda _, x: jnp.sin(x), jnp.ones(10_000)))

    return valid


class Shout(rfho.Listener):
    def __init__(self, told):
        self.told = told

    def step(self, report):
        if report.step == 1:
            os.write(self.told, b"1")


def run(folder, name, told, valid):
    # A process started in the background inherits a SIGINT that is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper), jnp.zeros(3))
    problem = rfho.Problem(dynamics, objective, None, valid, horizon=4)
    how = {"run": rfho.Run(folder, every=100), "listeners": [Shout(told)]}
    if name == "many":
        (solution, _) = rfho.tune_many(problem, [0.1, 0.2], steps=3, **how)
    else:
        solution = rfho.tune(problem, 0.1, method=METHODS[name], steps=3, **how)
    return [solution.result.name, len(solution.history)]


def forked(folder, name, valid):
    reads, writes = os.pipe()
    child = os.fork()
    if child:
        os.close(writes)
        return child, reads
    code = 99
    try:
        ended = run(folder, name, writes, valid)
        (folder / "solution").write_text(json.dumps(ended))
        code = 0
    except SystemExit as error:
        code = int(str(error.code))
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # as at the end of a process: whatever waits there is waited for
        os._exit(code)


def main():
    warnings.simplefilter("ignore", RuntimeWarning)  # JAX does not like forks
    folder, name, number, signals = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
    child, told = forked(folder, name, lasting(ENDLESS if signals > 1 else LONGER))
    os.read(told, 1)
    time.sleep(0.3)
    begin = time.monotonic()
    os.kill(child, number)
    saved = folder / "snapshots" / "00000001" / "commit.json"
    while not saved.exists() and time.monotonic() - begin < 60:
        time.sleep(0.01)
    early = time.monotonic() - begin
    if signals > 1:
        os.kill(child, number)
        begin = time.monotonic()
    over = 0
    while not over and time.monotonic() - begin < 60:
        over, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not over:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    found = RunFolder(folder)
    ended = {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - begin,
        "saved": early,
        "status": found.about().status,
        "steps": [row["step"] for row in found.history()],
        "solution": json.loads((folder / "solution").read_text())
        if (folder / "solution").exists()
        else None,
    }
    sys.stdout.write(json.dumps(ended) + "\n")


if __name__ == "__main__":
    main()
