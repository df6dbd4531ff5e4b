"""What the compiler makes of a function: the memory that it takes, asked without running it.

Only a compiler knows what it keeps in memory: what it fuses, which kernels need workspace, how tightly its
heap is packed. It is asked for the buffers alone, with the code itself as cheap as it can be had, which
takes a fraction of what it takes to compile a program that is to run.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rfho._programs.walk import aval_of, extend, read, trace
from rfho.typing import PyTree

_UNOPTIMISED: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,  # gone from JAX 0.12
}


def memory_of(function: Callable[..., PyTree], *arguments: PyTree) -> int:
    """Bytes that ``function`` takes beside its arguments, its results and the arrays it closes over.

    Any of them may be abstract or traced. Zero where the backend does not say.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho._programs.compiled import memory_of
        >>> x = jnp.ones((1000, 1000), jnp.float32)
        >>> memory_of(lambda x: jnp.sort(x @ x)[0, 0], x) >= 4 * 1000 * 1000
        True
    """
    return buffers_of(compiled(function, *arguments))


def buffers_of(program: jax.stages.Compiled) -> int:
    """Bytes that a program takes beside its arguments and results, on each device."""
    analysis = program.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)


def compiled(function: Callable[..., PyTree], *arguments: PyTree) -> jax.stages.Compiled:
    """``function`` compiled, with the code itself as cheap as it can be had; its arguments may be traced."""
    program, _ = trace(function, *arguments)
    variables = (*program.jaxpr.constvars, *program.jaxpr.invars)

    # Arrays that a function closes over are arguments: they may be traced, and are not to be folded.
    def run(given: list[Any]) -> list[Any]:
        values = dict(zip(variables, given, strict=True))
        extend(values, program.jaxpr.eqns)
        return [read(values, atom) for atom in program.jaxpr.outvars]

    avals = map(aval_of, variables)
    lowered = jax.jit(run).lower([jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals])
    return lowered.compile(compiler_options=_cheap())


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that this release of the compiler has: as a rule all, so that these are tried first."""
    if _are_known(options):
        return dict(options)
    return {name: value for name, value in options.items() if _are_known({name: value})}


@functools.cache
def _cheap() -> dict[str, Any]:
    return known_options(_UNOPTIMISED)


def _are_known(options: Mapping[str, Any]) -> bool:
    nothing = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), jnp.float32))
    try:
        nothing.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError:
        return False
    return True
