"""How long a program runs and how much memory it takes, beside plain training in the same process."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import rfho
from benchmarks import resident
from benchmarks.limits import limits
from rfho._programs import trees as tree
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    RealTimeHyperGradient,
)


class Measured(NamedTuple):
    """One program.

    Attributes:
        name: what it is.
        seconds: CPU seconds of one run (wall-clock seconds on other devices), median.
        ratio: that by plain training, median over the interleaved rounds.
        megabytes: its memory beyond plain training's: temporaries of the compiled program and its tape.
        resident_megabytes: the same by the process's peak resident memory (the host's, on other devices too).
        compile_seconds: time to trace and compile.
        kept_megabytes: what the method keeps of the run, by count; None where it keeps nothing.
        least_ratio: what ``ratio`` would be if only the least number of operations took time, see
            `benchmarks.limits`; None where it is not counted.
    """

    name: str
    seconds: float
    ratio: float
    megabytes: float
    resident_megabytes: float
    compile_seconds: float
    kept_megabytes: float | None = None
    least_ratio: float | None = None


class Program(NamedTuple):
    """A function of ``(problem, hyper)`` and of the memory that it is given and gives back."""

    run: Callable[[Any, Any], tuple[Any, Any]]
    memory: Any


class Compiled(NamedTuple):
    """It, compiled, with what it takes."""

    run: Callable[..., Any]
    megabytes: float
    compile_seconds: float


def measure(
    problem: rfho.Problem,
    hyper: Any,
    methods: dict[str, AbstractHyperGradient | None],
    *,
    rounds: int = 5,
) -> list[Measured]:
    """Every method beside plain training; None stands for grad over scan."""
    programs = {"plain training": plain()}
    for name, method in methods.items():
        programs[name] = _grad_over_scan() if method is None else by(method, problem, hyper)
    base, *rows = in_turn(programs, (problem, hyper), rounds=rounds)
    least = limits(problem, hyper)
    number = tree.size(hyper)
    return [base] + [
        row._replace(
            kept_megabytes=method and kept_megabytes(method, problem, hyper),
            least_ratio=least.least_ratio(method, number),
        )
        for row, method in zip(rows, methods.values(), strict=True)
    ]


def in_turn(
    programs: dict[str, Program], given: tuple[rfho.Problem, Any], *, rounds: int
) -> list[Measured]:
    """Every program in turn, ``rounds`` times; ratios and memory are by the first."""
    first, *_ = programs
    ready = {name: Ready(program, *given) for name, program in programs.items()}
    compiled = {name: program.compiled for name, program in ready.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    peaks: dict[str, float] = {}
    with resident.frugal():
        for name, program in ready.items():
            program.run()  # what is set up once and for all is not counted
            resident.release()
            peaks[name] = program.run().resident_megabytes + _megabytes(program.memory)
    for _ in range(rounds):
        for name, program in ready.items():
            times[name].append(program.seconds())
    return [
        Measured(
            name,
            statistics.median(times[name]),
            statistics.median(a / b for a, b in zip(times[name], times[first], strict=True)),
            compiled[name].megabytes - compiled[first].megabytes,
            peaks[name] - peaks[first],
            compiled[name].compile_seconds,
        )
        for name in programs
    ]


class Ready:
    """A compiled program, with the memory that one run hands to the next."""

    def __init__(self, program: Program, problem: rfho.Problem, hyper: Any) -> None:
        self.compiled = compiled_of(program, problem, hyper)
        self.memory = program.memory
        self._given = problem, hyper

    def run(self) -> "Taken":
        """One run."""
        taken = take(lambda: self.compiled.run(self._given, self.memory))
        _, self.memory = taken.out
        return taken

    def seconds(self) -> float:
        """What the second of two runs takes."""
        self.run()  # a virtual machine's host may have taken back what memory the last run left
        return self.run().seconds


def train(problem: rfho.Problem, hyper: Any) -> Any:
    """f(λ) by a plain scan, as one writes it by hand."""

    def step(at: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        state, t = at
        return (problem.step(state, hyper, t), t + 1), None

    (state, _), _ = jax.lax.scan(step, (problem.init(hyper), 0), None, problem.horizon)
    return problem.evaluate(problem.dynamics.output(state), hyper)


class Taken(NamedTuple):
    """One call: what came out, and what it took.

    Attributes:
        seconds: CPU seconds (wall-clock seconds on other devices).
        resident_megabytes: by how much it raised the process's resident memory at its peak.
    """

    out: Any
    seconds: float
    resident_megabytes: float


def take(function: Callable[[], Any]) -> Taken:
    """Calls ``function``."""
    before, start = resident.begin(), _clock()
    out = jax.block_until_ready(function())
    return Taken(out, _clock() - start, resident.peak() - before)


def kept_megabytes(
    method: AbstractHyperGradient, problem: rfho.Problem, hyper: Any
) -> float | None:
    """What a method keeps of the run: the tape of reverse mode, the tangents of forward mode."""
    if isinstance(method, ForwardHyperGradient | RealTimeHyperGradient):
        number = tree.size(hyper)
        directions = min(getattr(method, "chunk", None) or number, number)
        state = jax.tree.leaves(jax.eval_shape(problem.init, hyper))
        pushed = [leaf for leaf in state if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return directions * _megabytes(pushed)
    tape = eqx.filter_eval_shape(method.reserve, problem, hyper)
    return None if tape is None else _megabytes(tape)


def plain() -> Program:
    """Plain training."""
    return Program(lambda given, memory: (train(*given), memory), None)


def _grad_over_scan() -> Program:
    def run(given: Any, memory: Any) -> tuple[Any, Any]:
        problem, hyper = given
        return jax.value_and_grad(lambda h: train(problem, h))(hyper), memory

    return Program(run, None)


def by(method: AbstractHyperGradient, problem: rfho.Problem, hyper: Any) -> Program:
    """One estimate."""
    # As `tune` runs it: memory is reserved once and donated from one run to the next.
    memory = eqx.filter_jit(method.reserve)(problem, hyper)
    reserved = memory is not None

    def run(given: Any, memory: Any) -> tuple[Any, Any]:
        carry = memory if reserved else method.init(*given)
        estimate, carry = method.estimate(*given, carry)
        return (estimate.value, estimate.hypergradient), carry if reserved else memory

    return Program(run, memory)


def compiled_of(program: Program, problem: rfho.Problem, hyper: Any) -> Compiled:
    """The program for one problem."""
    start = time.perf_counter()
    jitted = eqx.filter_jit(program.run, donate="all-except-first")
    compiled = jitted.lower((problem, hyper), program.memory).compile()
    seconds = time.perf_counter() - start
    temporaries = compiled.compiled.memory_analysis().temp_size_in_bytes
    return Compiled(compiled, temporaries / 1e6 + _megabytes(program.memory), seconds)


def _megabytes(memory: Any) -> float:
    return tree.nbytes(memory) / 1e6


def _clock() -> float:
    on_cpu = jax.default_backend() == "cpu"
    return time.process_time() if on_cpu else time.perf_counter()
