"""Forecasts against measurements on 20 shapes: `python -m benchmarks.auto [--fit] [--start N]`.

Every program is compiled, weighed by the compiler's own account of its memory, and timed against plain training
in the same process: median CPU seconds of interleaved runs. `--fit` also prints the rates of this machine that
explain the measured times best.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.measure import Compiled, by, compiled_of, plain
from rfho._programs import trees as tree
from rfho._programs.trees import as_code
from rfho.choice import Parts
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    RandomForwardHyperGradient,
    ReverseHyperGradient,
)

REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Shape:
    """A network of tanh layers (none for softmax regression) and how it is trained."""

    sizes: tuple[int, ...]
    batch: int
    horizon: int
    optim: str
    examples: int = 0

    @property
    def name(self) -> str:
        """As in the table."""
        layers = "-".join(map(str, self.sizes))
        weights = f", {self.examples} weights" if self.examples else ""
        return f"{layers}, batch {self.batch}, T = {self.horizon}, {self.optim}{weights}"


SHAPES = (
    Shape((20, 5), 64, 40, "sgd"),
    Shape((60, 10), 32, 30, "momentum", examples=32),
    Shape((200, 10), 500, 40, "sgd", examples=500),
    Shape((200, 10), 500, 40, "adam", examples=500),
    Shape((784, 10), 1000, 30, "sgd", examples=1000),
    Shape((784, 10), 100, 60, "momentum", examples=1000),
    Shape((30, 40, 10), 32, 25, "adam"),
    Shape((50, 64, 64, 10), 16, 36, "momentum", examples=64),
    Shape((10, 20, 5), 256, 30, "sgd"),
    Shape((10, 20, 5), 16, 200, "adam"),
    Shape((100, 100, 10), 100, 50, "sgd"),
    Shape((100, 100, 10), 100, 50, "momentum"),
    Shape((100, 100, 10), 100, 50, "adam", examples=400),
    Shape((100, 100, 10), 1000, 20, "momentum", examples=1000),
    Shape((200, 200, 200, 10), 50, 30, "momentum"),
    Shape((200, 200, 200, 10), 50, 30, "adam"),
    Shape((784, 300, 10), 100, 20, "momentum", examples=400),
    Shape((784, 300, 300, 10), 100, 20, "momentum"),
    Shape((784, 300, 300, 10), 20, 20, "adam"),
    Shape((64, 64, 64, 64, 64, 10), 128, 30, "momentum"),
)

OPTIMISERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": lambda hyper: optax.sgd(hyper["lr"]),
    "momentum": lambda hyper: optax.sgd(hyper["lr"], momentum=0.9),
    "adam": lambda hyper: optax.adam(hyper["lr"], eps_root=1e-8),
}


def problem_of(shape: Shape) -> tuple[rfho.Problem, Any]:
    """The problem of a shape, and its hyperparameters."""
    rng = np.random.default_rng(0)
    count = max(shape.batch, shape.examples)
    dtype = jnp.result_type(float)
    x = jnp.asarray(rng.normal(size=(count, shape.sizes[0])), dtype)
    y = jnp.asarray(rng.integers(0, shape.sizes[-1], count))
    pairs = list(zip(shape.sizes[:-1], shape.sizes[1:], strict=True))
    init = [
        (jnp.asarray(rng.normal(size=p) / p[0] ** 0.5, dtype), jnp.zeros(p[1], dtype))
        for p in pairs
    ]

    def losses(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b)
        w, b = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y)

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        each = losses(params, *batch[:2])
        if shape.examples:
            each = each * jax.nn.sigmoid(hyper["weights"][batch[2]])
        return jnp.mean(each) + hyper["l2"] * sum(jnp.sum(w**2) for w, _ in params)

    def objective(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return jnp.mean(losses(params, *batch))

    hyper = {"lr": jnp.asarray(0.01, dtype), "l2": jnp.asarray(1e-4, dtype)}
    if shape.examples:
        hyper["weights"] = jnp.zeros(count, dtype)
    data = (x, y, jnp.arange(count))
    train = data if count == shape.batch else rfho.Stream(data, shape.batch, jax.random.key(0))
    dynamics = rfho.Descent(loss, OPTIMISERS[shape.optim], init)
    return rfho.Problem(dynamics, objective, train, (x, y), shape.horizon), hyper


def methods(m: int, number: int) -> Iterator[AbstractHyperGradient]:
    """Two that every shape is measured on, and two that change from shape to shape."""
    policies = (
        rfho.StoreAll(rfho.Keep.STATES),
        rfho.StoreAll(rfho.Keep.RESIDUALS),
        rfho.Replay(),
        rfho.Binomial(8),
    )
    yield ReverseHyperGradient()
    yield ReverseHyperGradient(rfho.Recompute())
    yield ReverseHyperGradient(policies[number % len(policies)])
    if m <= 8:
        yield ForwardHyperGradient(None if number % 2 else 1)
    else:
        yield RandomForwardHyperGradient(4, key=0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one shape, as forecast and as measured."""

    shape: Shape
    method: AbstractHyperGradient
    forecast: rfho.choice.Forecast
    measured: rfho.choice.Forecast


def measure(shape: Shape, number: int) -> Iterator[Row]:
    """Compiles and runs the methods of one shape and plain training, in turn, as `rfho.tune` runs them."""
    problem, hyper = problem_of(shape)
    parts = Parts(problem, hyper, rfho.choice.Rates())
    chosen = list(methods(tree.size(hyper), number))
    programs = [plain(), *(by(method, problem, hyper) for method in chosen)]
    built = [compiled_of(program, problem, hyper) for program in programs]
    seconds = interleaved(
        [
            _with_memory(made, program.memory, (problem, hyper))
            for made, program in zip(built, programs, strict=True)
        ]
    )
    for method, made, took in zip(chosen, built[1:], seconds[1:], strict=True):
        measured = rfho.choice.Forecast(took / seconds[0], round(1e6 * made.megabytes))
        yield Row(shape, method, method.cost(parts), measured)


def _with_memory(made: Compiled, memory: Any, given: Any) -> Callable[[], Any]:
    """The program as a function of nothing; its memory goes from one run to the next."""

    def run() -> Any:
        nonlocal memory
        out, memory = made.run(given, memory)
        return out

    return run


def interleaved(programs: list[Callable[[], Any]]) -> list[float]:
    """Median CPU seconds of each, all of them in turn, each repeated to at least 20 ms."""
    repeats = [max(1, int(0.02 / max(1e-6, _cpu_seconds(program, 1)))) for program in programs]
    times = [
        [_cpu_seconds(program, count) for program, count in zip(programs, repeats, strict=True)]
        for _ in range(REPEATS)
    ]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _cpu_seconds(program: Callable[[], Any], count: int) -> float:
    jax.block_until_ready(program())
    begin = time.process_time()
    for _ in range(count):
        jax.block_until_ready(program())
    return (time.process_time() - begin) / count


HEADER = """\
| shape | method | time × plain: forecast | measured | memory in kB: forecast | measured |
|---|---|---:|---:|---:|---:|"""


def line(row: Row) -> str:
    """One row of the table, in Markdown."""
    (time_, memory), (real_time, real_memory) = row.forecast, row.measured
    return (
        f"| {row.shape.name} | `{as_code(row.method)}` | {time_:.2f} | {real_time:.2f} "
        f"| {memory / 1000:.0f} | {real_memory / 1000:.0f} |"
    )


def summary(rows: list[Row]) -> str:
    """How many forecasts are within 25 %, and the worst."""
    lines: list[str] = []
    for name in rfho.choice.Forecast._fields:
        ratios = [getattr(row.forecast, name) / getattr(row.measured, name) for row in rows]
        within = sum(0.75 <= ratio <= 1.25 for ratio in ratios)
        lines.append(
            f"{name}: {within} of {len(ratios)} within 25 %, median {statistics.median(ratios):.2f}, "
            f"from {min(ratios):.2f} to {max(ratios):.2f} of the measured"
        )
    return "\n".join(lines)


def fit(rows: list[Row]) -> rfho.choice.Rates:
    """The rates with the least mean square of log(forecast / measured), by coordinate search from the present."""
    shapes = {row.shape for row in rows}
    parts = {shape: Parts(*problem_of(shape), rfho.choice.Rates()) for shape in shapes}

    def loss(rates: rfho.choice.Rates) -> float:
        costs = [row.method.cost(parts[row.shape].on(rates)) for row in rows]
        ratios = [cost.time / row.measured.time for cost, row in zip(costs, rows, strict=True)]
        return float(np.mean(np.log(ratios) ** 2))

    best = rfho.choice.Rates()
    least = loss(best)
    for factor in (3.0, 1.7, 1.3):
        for name in rfho.choice.Rates._fields:
            for step in (factor, 1 / factor):
                trial = best._replace(**{name: getattr(best, name) * step})
                if (found := loss(trial)) < least:
                    best, least = trial, found
        print(f"fit: {best}, root mean square {least**0.5:.3f}", flush=True)
    return best


def main(arguments: list[str]) -> None:
    """Measures, and prints the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--start", type=int, default=0, help="number of the first shape")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    print(HEADER)
    for number, shape in list(enumerate(SHAPES))[options.start :]:
        for row in measure(shape, number):
            rows.append(row)
            print(line(row), flush=True)
    print(f"\n{summary(rows)}")
    if options.fit:
        fit(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
