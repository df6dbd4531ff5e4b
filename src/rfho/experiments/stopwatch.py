"""What a program costs: seconds that other programs on the machine do not lengthen, and bytes."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax


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


def ratios(
    base: Program, programs: Mapping[str, Program], rounds: int
) -> tuple[float, dict[str, float]]:
    """Seconds of ``base``, and those of the others as multiples of it: medians over the rounds.

    All take turns, so that each is compared with a ``base`` of the same moment; a first round
    warms up and is not counted. Short programs are repeated to 20 ms.
    """
    whole = {"": base} | dict(programs)
    repeats = {name: _repeats(program) for name, program in whole.items()}
    times = [
        {name: seconds(program, repeats[name]) for name, program in whole.items()}
        for _ in range(rounds)
    ]
    of_base = statistics.median(each[""] for each in times)
    return of_base, {
        name: statistics.median(each[name] / each[""] for each in times) for name in programs
    }


def seconds(program: Program, repeats: int = 1) -> float:
    """Of one run, the mean over ``repeats``."""
    begin = clock()
    for _ in range(repeats):
        jax.block_until_ready(program.run())
    return (clock() - begin) / repeats


def _repeats(program: Program) -> int:
    first = seconds(program)
    return 1 if first > 1 else max(1, round(0.02 / max(1e-6, seconds(program))))
