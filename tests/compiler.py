"""Compiler options with which tests are ready sooner, as far as this release of JAX knows them."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from jax._src import compiler

from rfho._programs.compiled import known_options

# Half the time to compile. The option is gone from JAX 0.12 on.
OLD_EMITTERS = known_options({"xla_cpu_use_fusion_emitters": False})

UNOPTIMISED = {"xla_backend_optimization_level": 0}


@contextlib.contextmanager
def compiling_quickly() -> Iterator[None]:
    """Every program is compiled without XLA's expensive passes and by its old emitters.

    JAX has a setting for the passes, and takes options for one program; for all programs of a test they
    are added where JAX puts together what it hands to the compiler.
    """
    options = compiler.get_compile_options

    @functools.wraps(options)
    def with_old_emitters(*arguments: Any, **named: Any) -> Any:
        named["env_options_overrides"] = OLD_EMITTERS | (named.get("env_options_overrides") or {})
        return options(*arguments, **named)

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with mock.patch.object(compiler, "get_compile_options", with_old_emitters):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


executables: dict[tuple[str, bytes], Any] = {}
"""What was compiled in this process, by the program's text and the compiler's options."""

MOST_PIECES = 20_000
"""Of mapped memory: each executable takes some, and Linux allows a process 65,530."""


@contextlib.contextmanager
def compiling_once() -> Iterator[None]:
    """The same program is not compiled again: of those in a run of all tests two thirds were there before.

    JAX's own caches know a program by the Python function it was traced from, which is another one in each
    test. A program that calls back into Python has that call's address in its text, and is compiled anew.
    """
    compile_and_load = compiler.backend_compile_and_load

    @functools.wraps(compile_and_load)
    def known(backend: Any, module: Any, devices: Any, options: Any, callbacks: Any) -> Any:
        text = module.operation.get_asm(enable_debug_info=False)
        if callbacks or "callback" in text:
            return compile_and_load(backend, module, devices, options, callbacks)
        key = text, options.SerializeAsString()
        if key not in executables:
            executables[key] = compile_and_load(backend, module, devices, options, callbacks)
        return executables[key]

    with mock.patch.object(compiler, "backend_compile_and_load", known):
        yield
    if len(Path("/proc/self/maps").read_text().splitlines()) > MOST_PIECES:
        executables.clear()
