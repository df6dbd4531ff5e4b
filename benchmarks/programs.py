"""``python -m benchmarks.programs``: what the first two outer steps of each method compile.

A small problem: softmax on 320 features, a penalty for each four of them, T = 200. Each method has a process of its
own, in which `rfho.tune` takes two outer steps, and then two more in a second call. Programs are counted as JAX
reports them. CPU seconds are those of the first call less those of the second, which compiles nothing: tracing,
lowering, compiling; the lesser of two. One thread. ``plain training`` is `rfho.train`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.threads import one_thread

one_thread()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import rfho  # noqa: E402
from benchmarks.compilations import compilations  # noqa: E402

ROOT = Path(__file__).parents[1]
PLAIN, ROUNDS = "plain training", 2
FEATURES, CLASSES, EXAMPLES, GROUP, HORIZON = 320, 10, 400, 4, 200

METHODS: dict[str, Callable[[], Any]] = {
    "reverse": rfho.ReverseHyperGradient,
    "reverse, recomputing": lambda: rfho.ReverseHyperGradient(rfho.Recompute(20)),
    "reverse, binomial": lambda: rfho.ReverseHyperGradient(rfho.Binomial(10)),
    "long reverse": lambda: rfho.LongReverseHyperGradient(100),
    "automatic": rfho.AutoHyperGradient,
    "reversible": rfho.ReversibleHyperGradient,
    "forward": lambda: rfho.ForwardHyperGradient(chunk=20),
    "random forward": lambda: rfho.RandomForwardHyperGradient(4, key=0),
    "real time": lambda: rfho.RealTimeHyperGradient(50),
    "distilled": lambda: rfho.DistilledHyperGradient(0.5, key=0),
    "truncated": lambda: rfho.TruncatedHyperGradient(20),
    "online truncated": lambda: rfho.OnlineTruncatedHyperGradient(20, 50),
    "warm restart": lambda: rfho.WarmRestartHyperGradient(rfho.ReverseHyperGradient()),
    "warm long reverse": lambda: rfho.WarmRestartHyperGradient(rfho.LongReverseHyperGradient(100)),
    "persistent evolution": lambda: rfho.PersistentEvolutionHyperGradient(4, 0.01, every=50, key=0),
    "single evolution": lambda: rfho.SingleEvolutionHyperGradient(4, 0.01, every=50, key=0),
    "implicit": rfho.ImplicitHyperGradient,
    "alternating": lambda: rfho.AlternatingHyperGradient(0.4, every=20, products=5),
    "T1-T2": lambda: rfho.T1T2HyperGradient(0.4),
    "single loop": lambda: rfho.SingleLoopHyperGradient(0.4),
    "variance reduced": lambda: rfho.VarianceReducedHyperGradient(0.4),
    "one step": lambda: rfho.OneStepHyperGradient(20),
    "dynamic barrier": lambda: rfho.DynamicBarrierHyperGradient(0.05, every=20),
    "first order": lambda: rfho.FirstOrderHyperGradient(10.0, every=20),
}


class Compiled(NamedTuple):
    """What one call compiled.

    Attributes:
        names: of its programs.
        seconds: of the CPU, of the whole call.
    """

    names: list[str]
    seconds: float


def compiled_by(call: Callable[[], Any]) -> Compiled:
    """What ``call`` compiles."""
    with compilations() as names:
        begin = time.process_time()
        jax.block_until_ready(call())
        return Compiled(names, time.process_time() - begin)


def problem_of(name: str) -> tuple[rfho.Problem, Any]:
    """Softmax with a penalty for each group of features, and where the penalties begin."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(FEATURES, CLASSES)) * (np.arange(FEATURES) < 40)[:, None]

    def batch() -> tuple[Any, Any]:
        x = random.normal(size=(EXAMPLES, FEATURES)) / np.sqrt(FEATURES)
        noise = random.gumbel(size=(EXAMPLES, CLASSES))
        return jnp.asarray(x), jnp.asarray(np.argmax(10 * x @ truth + noise, axis=1))

    def entropy(w: Any, batch: Any) -> Any:
        x, y = batch
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x @ w, y))

    def loss(w: Any, hyper: Any, batch: Any) -> Any:
        weights = jnp.repeat(jnp.exp(hyper["penalties"]), GROUP)
        return entropy(w, batch) + jnp.sum(weights[:, None] * w**2)

    train, valid = batch(), batch()
    first = jnp.zeros((FEATURES, CLASSES))
    if name == "reversible":
        inner = rfho.ReversibleDescent(loss, lambda *_: 0.1, lambda *_: 0.9, init=first)
    else:
        inner = rfho.Descent(loss, lambda hyper: optax.sgd(0.5), first)
    objective = lambda w, hyper, batch: entropy(w, batch)  # noqa: E731
    problem = rfho.Problem(inner, objective, train=train, valid=valid, horizon=HORIZON)
    return problem, {"penalties": jnp.full(FEATURES // GROUP, -3.0)}


OUTER = optax.adam(0.01)


def tuned(name: str) -> Callable[[], Any]:
    """Two outer steps by a method, or plain training."""
    problem, hyper = problem_of(name)
    if name == PLAIN:
        return lambda: rfho.train(problem, hyper)
    method = METHODS[name]()
    return lambda: rfho.tune(problem, hyper, method=method, optim=OUTER, steps=2).hyper


def measured(name: str) -> dict[str, Any]:
    """A row: what the first run of two steps compiles beyond the second, which is to compile nothing."""
    run = tuned(name)
    first, second = compiled_by(run), compiled_by(run)
    return {
        "name": name,
        "names": first.names,
        "again": second.names,
        "seconds": first.seconds - second.seconds,
    }


def row_of(name: str) -> dict[str, Any]:
    """`measured` in a process of its own, the lesser of two: other programs stretch CPU seconds too."""
    command = [sys.executable, "-m", "benchmarks.programs", "--here", name]
    rows: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return min(rows, key=lambda row: row["seconds"])


def main() -> None:
    """Prints a table, and stores it if it is whole."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=__doc__)
    parser.add_argument("methods", nargs="*", help=f"of {PLAIN}, {', '.join(METHODS)}")
    parser.add_argument("--names", action="store_true", help="name the programs")
    parser.add_argument("--here", action="store_true", help="in this process, as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(*options.methods)))
        return
    from benchmarks import page
    from benchmarks.suite import (  # which take longer to import than a row to measure
        RESULTS,
        device,
    )

    rows: list[dict[str, Any]] = []
    for name in options.methods or [PLAIN, *METHODS]:
        rows.append(row_of(name))
        print(page.row_of_programs(rows[-1]), flush=True)
        if options.names:
            print("\n".join(f"  {one}" for one in rows[-1]["names"]))
    if not options.methods:
        result = {"part": "programs", "device": device(), "jax": jax.__version__, "rows": rows}
        (RESULTS / "cpu-programs.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
