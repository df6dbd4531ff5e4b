"""What a linearisation needs to be used later: its residuals, and which of them have to be kept meanwhile.

`jax.linearize` and `jax.vjp` return a function that is a pytree of residuals. Those that follow from
what changes from step to step are kept; constants and data that a function closes over, and whatever
follows from them alone, are there again when the function is linearised anew, and are not.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
from jax import Array

from rfho._programs.walk import Program, called, evaluate, everywhere, is_literal, is_loop
from rfho.typing import PyTree


class Linearisation(NamedTuple):
    """A function at a point.

    Attributes:
        outputs: its values, and whatever else it gave.
        pull: its linear part, a pytree of residuals.
        varying: for each residual whether it follows from the varying argument without being a part of it.
        loops: whether anything runs many times, so that its residuals are stacked.
    """

    outputs: PyTree
    pull: Callable[..., PyTree]
    varying: tuple[bool, ...]
    loops: bool

    def kept(self) -> tuple[Array, ...]:
        """The residuals that have to be kept."""
        leaves = jax.tree.leaves(self.pull)
        return tuple(leaf for leaf, keep in zip(leaves, self.varying, strict=True) if keep)

    def recalled(self, kept: tuple[Array, ...]) -> Callable[..., PyTree]:
        """The linear part with residuals that were kept in place of these, which then are dead code.

        Raises:
            RuntimeError: they are not those of this function at such a point.
        """
        leaves, structure = jax.tree.flatten(self.pull)
        kinds = lambda arrays: [(array.shape, array.dtype) for array in arrays]  # noqa: E731
        if kinds(kept) != kinds(self.kept()):
            raise RuntimeError(
                f"residuals of {kinds(kept)} were kept, but {kinds(self.kept())} are needed: the function was "
                "traced to two different programs; let it be pure, or use rfho.Keep.GRADIENTS"
            )
        memory = iter(kept)
        pairs = zip(leaves, self.varying, strict=True)
        return structure.unflatten(next(memory) if keep else leaf for leaf, keep in pairs)


def linearised(
    function: Callable[..., tuple[PyTree, Callable[..., PyTree]]], varying: PyTree, *given: PyTree
) -> Linearisation:
    """``function(varying, *given) -> (outputs, pull)`` at its arguments; pull as JAX returns it.

    Two calls with the same shapes have the same residuals in the same order.
    """

    def flat(varying: PyTree, *given: PyTree) -> PyTree:
        outputs, pull = function(varying, *given)
        leaves, structure = jax.tree.flatten(pull)
        return outputs, leaves, structure

    arguments = varying, *given
    program, like, static = eqx.filter_make_jaxpr(flat)(*arguments)
    results = evaluate(program, _arrays(arguments))
    results = jax.tree.unflatten(jax.tree.structure(like), results)
    outputs, leaves, structure = eqx.combine(results, static)
    inputs, count = program.jaxpr.invars, len(_arrays(varying))
    follows = _follows(program, [i < count for i in range(len(inputs))])
    outputs_too = zip(follows, program.jaxpr.outvars, strict=True)
    made = [follow and atom not in inputs for follow, atom in outputs_too]
    loops = any(map(is_loop, everywhere(program)))
    kept = tuple(made[len(made) - len(leaves) :])
    return Linearisation(outputs, structure.unflatten(leaves), kept, loops)


def _arrays(tree: PyTree) -> list[Array]:
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


def _follows(program: Program, varying: Sequence[bool]) -> list[bool]:
    """For each output of a program whether it follows from an input that is varying."""
    reached = {atom for atom, varies in zip(program.jaxpr.invars, varying, strict=True) if varies}
    is_reached = lambda atom: not is_literal(atom) and atom in reached  # noqa: E731
    for equation in program.jaxpr.eqns:
        operands, inner = [*map(is_reached, equation.invars)], called(equation)
        results = _follows(inner, operands) if inner else [any(operands)] * len(equation.outvars)
        pairs = zip(equation.outvars, results, strict=True)
        reached.update(atom for atom, follows in pairs if follows)
    return [*map(is_reached, program.jaxpr.outvars)]
