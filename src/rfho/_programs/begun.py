"""Programs that are begun and not waited for.

`equinox.filter_jit` waits for what it begins, to make its errors readable, and while it waits Python sees no signal.
Here whoever takes the results decides how to wait for them.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

from rfho.typing import PyTree

_P = ParamSpec("_P")
_R = TypeVar("_R")

_UNUSABLE = "Some donated buffers were not usable*"


class _Static(eqx.Module):
    """What a program gives beside arrays."""

    value: PyTree = eqx.field(static=True)


def begun(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function`` as a program for each structure of its arguments; what is no JAX array in them is static."""
    return _begun(function, donates=False)


def begun_in_place(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same, whose arrays take the place of those in all arguments but the first."""
    return _begun(function, donates=True)


def is_there(array: Any) -> bool:
    """Whether the program that computes ``array`` has done so."""
    return array.is_ready()


def _begun(function: Callable[..., Any], *, donates: bool) -> Callable[..., Any]:
    def program(first: Any, rest: Any, static: Any) -> Any:
        out = function(_joined(first, static[0]), *_joined(rest, static[1]))
        arrays, others = eqx.partition(out, eqx.is_array)
        return arrays, _Static(others)

    program.__name__ = program.__qualname__ = function.__name__
    compiled = jax.jit(program, static_argnums=2, donate_argnums=1 if donates else ())

    @functools.wraps(function)
    def begin(first: Any, *rest: Any) -> Any:
        (arrays, others), (more, more_others) = _parted(first), _parted(rest)
        with warnings.catch_warnings() if donates else contextlib.nullcontext():
            if donates:
                warnings.filterwarnings("ignore", message=_UNUSABLE)
            found, static = compiled(arrays, more, (others, more_others))
        return eqx.combine(found, static.value)

    return begin


def _parted(tree: PyTree) -> tuple[tuple[Any, ...], Any]:
    """The arrays of a tree, and a value to tell trees by that differ in anything else."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = tuple(leaf if eqx.is_array(leaf) else None for leaf in leaves)
    return arrays, (tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves), structure)


def _joined(arrays: tuple[Any, ...], static: Any) -> PyTree:
    others, structure = static
    leaves = (
        array if other is None else other for array, other in zip(arrays, others, strict=True)
    )
    return jax.tree.unflatten(structure, leaves)
