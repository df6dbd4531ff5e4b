"""How long a program runs and how much memory it takes, beside plain training in the same process."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax

import rfho
from rfho.hyper_gradients import AbstractHyperGradient


class Measured(NamedTuple):
    """One program.

    Attributes:
        name: what it is.
        seconds: CPU seconds of one run (wall-clock seconds on other devices), median.
        ratio: that by plain training, median over the interleaved rounds.
        megabytes: its memory beyond plain training's: temporaries of the compiled program and its tape.
        compile_seconds: time to trace and compile.
    """

    name: str
    seconds: float
    ratio: float
    megabytes: float
    compile_seconds: float


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
    return in_turn(programs, (problem, hyper), rounds=rounds)


def in_turn(
    programs: dict[str, Program], given: tuple[rfho.Problem, Any], *, rounds: int
) -> list[Measured]:
    """Every program in turn, ``rounds`` times; ratios and memory are by the first."""
    first, *_ = programs
    compiled = {name: compiled_of(program, *given) for name, program in programs.items()}
    memories = {name: program.memory for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in compiled.items():
            start = _clock()
            out, memories[name] = program.run(given, memories[name])
            jax.block_until_ready((out, memories[name]))
            times[name].append(_clock() - start)
            del out
    base = times[first][1:]
    return [
        Measured(
            name,
            statistics.median(times[name][1:]),
            statistics.median(a / b for a, b in zip(times[name][1:], base, strict=True)),
            compiled[name].megabytes - compiled[first].megabytes,
            compiled[name].compile_seconds,
        )
        for name in programs
    ]


def train(problem: rfho.Problem, hyper: Any) -> Any:
    """f(λ) by a plain scan, as one writes it by hand."""

    def step(at: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        state, t = at
        return (problem.step(state, hyper, t), t + 1), None

    (state, _), _ = jax.lax.scan(step, (problem.init(hyper), 0), None, problem.horizon)
    return problem.evaluate(problem.dynamics.output(state), hyper)


def seconds(function: Callable[[], Any]) -> float:
    """CPU seconds (wall-clock seconds on other devices) of one call."""
    start = _clock()
    jax.block_until_ready(function())
    return _clock() - start


def peak_megabytes() -> float:
    """The process's peak resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


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
    tape = sum(leaf.nbytes for leaf in jax.tree.leaves(program.memory))
    return Compiled(compiled, (temporaries + tape) / 1e6, seconds)


def _clock() -> float:
    on_cpu = jax.default_backend() == "cpu"
    return time.process_time() if on_cpu else time.perf_counter()
