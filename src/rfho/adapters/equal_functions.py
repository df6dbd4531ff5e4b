"""One function for all that are equal: programs are compiled once, however often a problem is built.

A program belongs to the very functions that it was traced from. Code that builds a problem once for each
trial makes new functions each time, ``lambda w, hyper, batch: …`` among them, and all of them would be compiled
anew. Two functions do the same if they have the same code and see the same things: in their closures, their
defaults, and the names of their own module that they use. Numbers, words, small arrays, containers and
whatever else compares by its value are compared by it, functions as these are. One that sees an object whose
state nobody can compare (a trainer, a PyTorch module) is equal to itself alone.
"""

import enum
import functools
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

from rfho.typing import PyTree

_REMEMBERED = 256
_SMALL = 2**20  # bytes

_VALUES = int | float | complex | str | bytes | types.NoneType | types.EllipsisType
_CONSTANTS = types.ModuleType | types.BuiltinFunctionType | type | enum.Enum


def with_first_functions(tree: PyTree) -> PyTree:
    """``tree`` with the first function that was equal in place of each of its functions.

    Args:
        tree: any pytree, a problem or an optimiser among them. Functions in its static fields stay.

    Example:
        >>> from rfho.adapters.equal_functions import with_first_functions
        >>> def made(rate):
        ...     return lambda x: rate * x
        >>> one, other, third = map(with_first_functions, (made(0.1), made(0.1), made(0.2)))
        >>> one is other, one is third
        (True, False)
    """
    return jax.tree.map(lambda leaf: _first(leaf) if callable(leaf) else leaf, tree)


def _first(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        known = _Known(function)
        place = _place(known)
        if _Known(place[0]) != known:  # what the first one sees has changed since
            place[0] = function
    except _CannotBeComparedError:
        return function
    return place[0]


@functools.lru_cache(maxsize=_REMEMBERED)
def _place(known: "_Known") -> list[Callable[..., Any]]:
    return [known.function]


class _Known:
    """A function that is equal to all that do the same."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._identity = _identity(function, (), None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


class _CannotBeComparedError(Exception):
    """Something is seen whose state may change unnoticed."""


def _identity(thing: Any, above: tuple[Any, ...], home: dict[str, Any] | None) -> Hashable:
    """What is equal only for things that do the same, as long as both are alive.

    ``above`` is what contains the thing, ``home`` the names of the module whose functions are looked into.
    """
    if isinstance(thing, _VALUES):
        return type(thing), repr(thing)
    if _never_changes(thing):
        return type(thing), id(thing)
    for depth, outer in enumerate(above):
        if thing is outer:
            return "itself", depth
    if isinstance(thing, types.FunctionType) and home is None:
        home = thing.__globals__
    same, parts = _parts(thing, home)
    return type(thing), same, tuple(_identity(part, (*above, thing), home) for part in parts)


def _never_changes(thing: Any) -> bool:
    """Of constants, large arrays and what JAX makes of functions, each is what it is for ever."""
    if isinstance(thing, jax.Array):
        return thing.nbytes > _SMALL
    return isinstance(thing, _CONSTANTS) or type(thing).__module__.startswith(("jax.", "jaxlib."))


def _parts(thing: Any, home: dict[str, Any] | None) -> tuple[Any, Any]:
    """What must be the same, and what must be equal."""
    if isinstance(thing, types.FunctionType):
        return _parts_of_function(thing, home)
    if isinstance(thing, functools.partial):
        return None, (thing.func, thing.args, thing.keywords)
    if isinstance(thing, types.MethodType):
        return None, (thing.__func__, thing.__self__)
    if isinstance(thing, tuple | list | set | frozenset):
        return len(thing), thing
    if isinstance(thing, dict):
        return len(thing), (*thing.keys(), *thing.values())
    if isinstance(thing, np.ndarray | np.generic | jax.Array) and thing.nbytes <= _SMALL:
        array = np.asarray(thing)
        return (array.shape, str(array.dtype), array.tobytes()), ()
    if isinstance(thing, eqx.Module):
        leaves, structure = jax.tree.flatten(thing)
        return structure, leaves
    try:
        hash(thing)
    except TypeError as error:
        raise _CannotBeComparedError from error
    if type(thing).__eq__ is object.__eq__:
        raise _CannotBeComparedError
    return thing, ()


def _parts_of_function(thing: types.FunctionType, home: dict[str, Any] | None) -> Any:
    cells = tuple(_content(cell) for cell in thing.__closure__ or ())
    names = thing.__globals__
    used = {name: names[name] for name in _names(thing.__code__) if name in names}
    seen = used if names is home else {}  # those of libraries do not change
    code = thing.__code__, thing.__code__.co_filename, id(names)
    return code, (cells, thing.__defaults__, thing.__kwdefaults__, vars(thing), seen)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing is in it yet
        return None
