"""What is measured: for each problem the methods that make sense on it, and two growths."""

import dataclasses
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import rfho
from benchmarks import implicit, problems, resident
from benchmarks.limits import limits, runs_anew
from benchmarks.measure import Measured, Taken, measure, take
from rfho._engines.reverse import Sweep
from rfho._programs import trees as tree
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    LongReverseHyperGradient,
    RandomForwardHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)
from rfho.hyper_gradients.segments import (
    Length,
    advance,
    begin,
    evaluate,
    finish,
    pull_back,
    read_end,
)

RESULTS = Path(__file__).parent / "results"

Keep = rfho.Keep


def _reverse(policy: rfho.memory.AbstractCheckpoint) -> ReverseHyperGradient:
    return ReverseHyperGradient(policy)


def p1(*, quick: bool) -> list[dict[str, Any]]:
    """Softmax regression, one weight per example: T = 50, for memory, and 200, for time."""
    methods = {
        "grad over scan": None,
        "StoreAll(RESIDUALS)": _reverse(rfho.StoreAll(Keep.RESIDUALS)),
        "StoreAll(STATES)": _reverse(rfho.StoreAll(Keep.STATES)),
        "Recompute()": _reverse(rfho.Recompute()),
        "Truncated(10)": TruncatedHyperGradient(10),
        "RandomForward(8)": RandomForwardHyperGradient(8, key=0),
    }
    return _rows([problems.softmax_regression(50)], methods, quick=quick)


def p2(*, quick: bool) -> list[dict[str, Any]]:
    """The tanh network under momentum, by every policy, forward and in real time."""
    horizon = 200
    methods = {
        "grad over scan": None,
        "StoreAll(RESIDUALS)": _reverse(rfho.StoreAll(Keep.RESIDUALS)),
        "StoreAll()": _reverse(rfho.StoreAll()),
        "StoreAll(STATES)": _reverse(rfho.StoreAll(Keep.STATES)),
        "Replay()": _reverse(rfho.Replay()),
        "Recompute(100, STATES)": _reverse(rfho.Recompute(100, Keep.STATES)),
        "Recompute()": _reverse(rfho.Recompute()),
        "Binomial(20)": _reverse(rfho.Binomial(20)),
        "forward, 3 directions": ForwardHyperGradient(),
        "real-time, 3 directions": RealTimeHyperGradient(horizon),
    }
    return _rows([problems.tanh_network(horizon)], methods, quick=quick)


def p2_anchored(*, quick: bool) -> list[dict[str, Any]]:
    """P2 with momentum as `HeavyBall`: steps are undone instead of stored."""
    methods = {
        "StoreAll(RESIDUALS)": _reverse(rfho.StoreAll(Keep.RESIDUALS)),
        "Anchored()": _reverse(rfho.Anchored()),
        "Anchored(25)": _reverse(rfho.Anchored(25, tolerance=1e-5)),
        "Anchored(50)": _reverse(rfho.Anchored(50, tolerance=1e-4)),
    }
    return _rows([problems.as_heavy_ball(problems.tanh_network())], methods, quick=quick)


def p2_schedules(*, quick: bool) -> list[dict[str, Any]]:
    """P2 by its rate alone, and with schedules of 10 and 100 rates."""
    alone = problems.of_rate_alone(problems.tanh_network())
    methods = {
        "StoreAll(RESIDUALS)": _reverse(rfho.StoreAll(Keep.RESIDUALS)),
        "forward": ForwardHyperGradient(chunk=12),
        "real-time": RealTimeHyperGradient(200),
    }
    rows = _rows([alone, problems.tanh_network(rates=10)], methods, quick=quick)
    del methods["forward"], methods["real-time"]
    return rows + _rows([problems.tanh_network(rates=100)], methods, quick=quick)


def p3(*, quick: bool) -> list[dict[str, Any]]:
    """The convolutional network under Adam."""
    methods = {
        "grad over scan": None,
        "StoreAll(RESIDUALS)": _reverse(rfho.StoreAll(Keep.RESIDUALS)),
        "StoreAll()": _reverse(rfho.StoreAll()),
        "Replay()": _reverse(rfho.Replay()),
        "Recompute()": _reverse(rfho.Recompute()),
    }
    return _rows([problems.convolutional_network()], methods, quick=quick)


def p4(*, quick: bool) -> list[dict[str, Any]]:
    """The transformer under AdamW."""
    if quick:
        return []
    methods = {
        "grad over scan": None,
        "StoreAll()": _reverse(rfho.StoreAll()),
        "Replay()": _reverse(rfho.Replay()),
        "Replay(HalfPrecision)": _reverse(rfho.Replay(encoding=rfho.memory.HalfPrecision())),
        "Recompute(15)": _reverse(rfho.Recompute(15)),
        "Recompute()": _reverse(rfho.Recompute()),
    }
    return _rows([problems.transformer()], methods, quick=True)


def p5(*, quick: bool) -> list[dict[str, Any]]:
    """Implicit differentiation with one penalty per parameter."""
    measured = implicit.costs(rounds=5 if quick else 11)
    return _shown(measured, implicit.penalties())


def horizon(*, quick: bool) -> list[dict[str, Any]]:
    """Growth with T on a small tanh network of the P2 kind."""
    methods = {
        "StoreAll()": _reverse(rfho.StoreAll()),
        "Recompute()": _reverse(rfho.Recompute()),
        "Binomial(10)": _reverse(rfho.Binomial(10)),
        "forward": ForwardHyperGradient(),
    }
    horizons = (100, 400, 1600) if quick else (100, 400, 1600, 6400, 25_600, 102_400)
    return _rows([problems.small_network(t) for t in horizons], methods, quick=True)


def number(*, quick: bool) -> list[dict[str, Any]]:
    """Growth with the number of hyperparameters on the same network."""
    methods = {
        "StoreAll()": _reverse(rfho.StoreAll()),
        "forward": ForwardHyperGradient(),
        "forward in chunks of 10": ForwardHyperGradient(chunk=10),
    }
    numbers = (1, 10, 100) if quick else (1, 10, 100, 1000)
    many = [problems.small_network(200 if m < 1000 else 1000, rates=m) for m in numbers]
    return _rows(many, methods, quick=True)


def long(*, quick: bool) -> list[dict[str, Any]]:
    """Segments driven from Python, states on a shelf: the small network to T = 10^7, P2 to 10^5."""
    small, p2 = problems.small_network, problems.tanh_network
    horizon = 10_000 if quick else 100_000
    rows = [
        _long("all segment starts on the host", small, horizon, LongReverseHyperGradient(1000)),
        _long("10 slots on the host", small, horizon, LongReverseHyperGradient(1000, slots=10)),
    ]
    if not quick:
        slots = LongReverseHyperGradient(1000, slots=10)
        rows.append(_long("10 slots on the host", small, 1_000_000, slots))
        rows.append(ten_million())
        slots = LongReverseHyperGradient(100, slots=10)
        rows.append(_long("10 slots on the host", p2, 10_000, slots))
        with tempfile.TemporaryDirectory() as folder:
            disk = LongReverseHyperGradient(100, shelf=rfho.DiskShelf(folder))
            rows.append(_long("all segment starts on disk", p2, 100_000, disk))
    return rows


def ten_million() -> dict[str, Any]:
    """The row of T = 10^7: as many states as log2 T, and segments so long that few are run anew."""
    slots = LongReverseHyperGradient(4000, slots=24)
    return _long("24 slots on the host", problems.small_network, 10_000_000, slots)


def _long(
    label: str,
    benchmark: Callable[[int], problems.Benchmark],
    horizon: int,
    method: LongReverseHyperGradient,
) -> dict[str, Any]:
    long = benchmark(horizon)
    anew = runs_anew(method, horizon)
    # Fifty segments, all of whose starts are held: what is missing is that some are run anew.
    short = benchmark(50 * method.segment)
    predicted = anew + _taken(short, dataclasses.replace(method, slots=None)).ratio
    taken = _taken(long, method)
    print(
        f"{long.name} T={horizon} {label}: {taken.ratio:.2f} x, predicted {predicted:.2f}",
        flush=True,
    )
    return {
        "problem": long.name,
        "T": horizon,
        "name": label,
        **taken._asdict(),
        "predicted_ratio": predicted,
        "least_ratio": 2 + anew + limits(long.problem, long.hyper).product_anew,
    }


class _Taken(NamedTuple):
    seconds: float
    ratio: float
    resident_megabytes: float


def _taken(benchmark: problems.Benchmark, method: LongReverseHyperGradient) -> _Taken:
    _, problem, hyper = benchmark

    def both() -> tuple[Taken, Taken]:
        plain = take(lambda: method.conclude(problem, hyper, None))
        resident.release()
        return plain, take(lambda: method.estimate(problem, hyper, None))

    _compile(benchmark, method)  # which takes seconds and hundreds of megabytes
    plain, long = both()
    return _Taken(long.seconds, long.seconds / plain.seconds, long.resident_megabytes)


def _compile(benchmark: problems.Benchmark, method: LongReverseHyperGradient) -> None:
    """Runs every program of a run once: a segment there and back, and what begins and ends it."""
    _, problem, hyper = benchmark
    start, length = tree.known(0, np.int32), Length(method.segment)
    state = advance(problem, hyper, begin(problem, hyper), start, length)
    evaluate(problem, hyper, problem.dynamics.output(state))
    reading = read_end(problem, hyper, state)
    given = state, (reading.by_state, reading.by_hyper)
    adjoint, found = pull_back(problem, hyper, given, start, length, method.checkpoint)
    swept = Sweep(reading.value, found, state, reading.by_state, adjoint, None)
    jax.block_until_ready(finish(problem, hyper, swept))


PARTS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "P1": p1,
    "P2": p2,
    "P2-anchored": p2_anchored,
    "P2-schedules": p2_schedules,
    "P3": p3,
    "P4": p4,
    "P5": p5,
    "horizon": horizon,
    "number": number,
    "long": long,
}


def run(parts: list[str], *, quick: bool) -> None:
    """Measures the parts and stores each under the name of the device."""
    RESULTS.mkdir(exist_ok=True)
    for part in parts:
        rows = PARTS[part](quick=quick)
        if rows:
            result = {"part": part, "device": device(), "jax": jax.__version__, "rows": rows}
            place = RESULTS / f"{jax.default_backend()}-{part}.json"
            place.write_text(json.dumps(result, indent=1) + "\n")


def device() -> str:
    """The chip's name."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, one thread"


def _rows(
    benchmarks: list[problems.Benchmark], methods: dict[str, Any], *, quick: bool
) -> list[dict[str, Any]]:
    rows = []
    for benchmark in benchmarks:
        _, problem, hyper = benchmark
        measured = measure(problem, hyper, methods, rounds=3 if quick else 7)
        rows += _shown(measured, benchmark)
    return rows


def _shown(measured: list[Measured], benchmark: problems.Benchmark) -> list[dict[str, Any]]:
    name, problem, hyper = benchmark
    hypers = tree.size(hyper)
    for row in measured:
        print(
            f"{name} T={problem.horizon} m={hypers} {row.name:26s} {row.seconds:8.3f} s "
            f"{row.ratio:6.2f} x {row.megabytes:8.1f} MB ({row.resident_megabytes:.1f} MB resident)  "
            f"compiled in {row.compile_seconds:.1f} s",
            flush=True,
        )
    shape = {"problem": name, "T": problem.horizon, "hyperparameters": hypers}
    return [{**shape, **row._asdict()} for row in measured]
