"""Compiler options with which tests are ready sooner, as far as this release of JAX knows them."""

import contextlib
import functools
from collections.abc import Iterator
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
