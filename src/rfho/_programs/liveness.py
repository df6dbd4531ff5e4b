"""Which inputs of a function its outputs use, and what remains of a program without the rest."""

from collections.abc import Callable

import equinox as eqx
import jax
from jax.interpreters.partial_eval import dce_jaxpr

from rfho._programs.walk import Program, closed
from rfho.typing import PyTree


def inputs_used(function: Callable[..., PyTree], *arguments: PyTree) -> tuple[PyTree, ...]:
    """For each argument a tree of bools: whether the inexact outputs of ``function`` use that leaf.

    ``arguments`` may be abstract. Nested programs (of jit, scan, remat) are seen through; where that fails
    all inputs count as used, so that True may be said of a leaf that is not used, and never the other
    way round.
    """
    floats = lambda *args: eqx.filter(function(*args), eqx.is_inexact_array)  # noqa: E731
    jaxpr = jax.make_jaxpr(floats)(*arguments).jaxpr
    _, used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return jax.tree.unflatten(jax.tree.structure(arguments), used)


def without_dead_code(program: Program) -> Program:
    """The same program, less the equations that no output uses; it has the same inputs."""
    jaxpr = program.jaxpr
    alive, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    return closed(alive, program.consts)
