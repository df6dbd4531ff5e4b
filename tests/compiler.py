"""How tests are ready sooner: each program compiled once, by cheaper options where this JAX has them."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
from jax._src import compiler

from rfho._programs.compiled import known_options

# A third of the time to compile: one piece of code instead of up to 32, by emitters that are gone from JAX 0.12 on.
CHEAPLY = known_options(
    {"xla_cpu_parallel_codegen_split_count": 1, "xla_cpu_use_fusion_emitters": False}
)

UNOPTIMISED = {"xla_backend_optimization_level": 0}


@contextlib.contextmanager
def compiling_quickly() -> Iterator[None]:
    """Every program is compiled without XLA's expensive passes, and cheaply.

    JAX has a setting for the passes, and takes options for one program; for all programs of a test they
    are added where JAX puts together what it hands to the compiler.
    """
    options = compiler.get_compile_options

    @functools.wraps(options)
    def cheaply(*arguments: Any, **named: Any) -> Any:
        named["env_options_overrides"] = CHEAPLY | (named.get("env_options_overrides") or {})
        return options(*arguments, **named)

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with mock.patch.object(compiler, "get_compile_options", cheaply):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


class Compiled(NamedTuple):
    """An executable, and how long the text of its program is."""

    executable: Any
    length: int


executables: dict[bytes, Compiled] = {}
"""What was compiled in this process, by a digest of the program's text and of the compiler's options."""

SHORT, MOST = 20_000, 1000
"""Programs of at most so many characters outlive their file, and no more than so many executables: each takes a
quarter of a megabyte, and maps memory, of whose pieces Linux allows a process 65,530."""


@contextlib.contextmanager
def compiling_once() -> Iterator[None]:
    """The same program is not compiled again: of 1555 in four files of tests 566 were different.

    JAX's own caches know a program by the Python function it was traced from, which is another one in each
    test. A program that calls back into Python has that call's address in its text, and is compiled anew.
    """
    compile_and_load = compiler.backend_compile_and_load

    @functools.wraps(compile_and_load)
    def known(backend: Any, module: Any, devices: Any, options: Any, callbacks: Any) -> Any:
        text = module.operation.get_asm(enable_debug_info=False)
        if callbacks or "callback" in text:
            return compile_and_load(backend, module, devices, options, callbacks)
        key = hashlib.sha256(text.encode() + options.SerializeAsString()).digest()
        if key not in executables:
            executable = compile_and_load(backend, module, devices, options, callbacks)
            executables[key] = Compiled(executable, len(text))
        return executables[key].executable

    with mock.patch.object(compiler, "backend_compile_and_load", known):
        yield
    kept = {key: compiled for key, compiled in executables.items() if compiled.length <= SHORT}
    executables.clear()
    if len(kept) <= MOST:
        executables.update(kept)
