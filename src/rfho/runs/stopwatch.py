"""What a program costs: seconds that other programs on the machine do not lengthen, and bytes."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax

import rfho


class Program(NamedTuple):
    """A compiled program.

    Attributes:
        run: computes it once.
        memory: bytes of its temporaries, by the compiler's own account: what it takes beside its
            arguments and results.
    """

    run: Callable[[], Any]
    memory: int


def clock() -> float:
    """CPU seconds of this process so far; wall-clock seconds where JAX computes on another device.

    On one core both are the same, if nobody else uses it.
    """
    on_cpu = jax.default_backend() == "cpu"
    return time.process_time() if on_cpu else time.perf_counter()


def compiled(function: Callable[..., Any], *arguments: Any) -> Program:
    """``function`` of ``arguments``, whose arrays are given and not made part of the program."""
    jitted: Any = eqx.filter_jit(function)
    built = jitted.lower(*arguments).compile()
    memory = int(built.compiled.memory_analysis().temp_size_in_bytes)
    return Program(lambda: built(*arguments), memory)


def whole_run(
    method: rfho.hyper_gradients.AbstractHyperGradient,
) -> Callable[[rfho.Problem, Any], Any]:
    """As many estimates as one training run has: one, or T / Δ of a real-time method."""

    def estimates(problem: rfho.Problem, hyper: Any) -> Any:
        def one(carry: Any, _: None) -> tuple[Any, Any]:
            estimate, carry = method.estimate(problem, hyper, carry)
            return carry, (estimate.value, estimate.hypergradient)

        number = method.limit(problem) or 1
        carry = method.init(problem, hyper)
        return one(carry, None)[1] if number == 1 else jax.lax.scan(one, carry, None, number)[1]

    return estimates


def ratios(base: Program, programs: Mapping[str, Program], rounds: int) -> dict[str, float]:
    """Seconds of programs as multiples of those of ``base``: medians over the rounds.

    All take turns, so that each is compared with a ``base`` of the same moment. Short programs are
    repeated to 50 ms, after one run that is not counted: the one before may have taken the caches.
    """
    whole = {"": base} | dict(programs)
    repeats = {name: _repeats(program) for name, program in whole.items()}
    times = [
        {name: _warm_seconds(program, repeats[name]) for name, program in whole.items()}
        for _ in range(rounds)
    ]
    return {name: statistics.median(each[name] / each[""] for each in times) for name in programs}


def seconds(program: Program, repeats: int = 1) -> float:
    """Of one run, the mean over ``repeats``."""
    begin = clock()
    for _ in range(repeats):
        jax.block_until_ready(program.run())
    return (clock() - begin) / repeats


def _warm_seconds(program: Program, repeats: int) -> float:
    if repeats > 0:
        seconds(program)
    return seconds(program, max(1, repeats))


def _repeats(program: Program) -> int:
    """How often to run it; 0 is once, for programs so long that they need no warming."""
    first = seconds(program)
    return 0 if first > 1 else max(1, round(0.05 / max(1e-6, seconds(program))))
