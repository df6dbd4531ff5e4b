"""What a run is made of, so that it is known whether an interrupted one would go on as the same.

Versions, device, settings, data and functions, each by name: words where there are words, and otherwise
digests, of arrays by their bytes and of functions by their source, what they close over, and the functions
of the same package that they call. Comments and the way in which lines are broken do not count.
"""

import ast
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import inspect
import itertools
import os
import sysconfig
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rfho.memory.shards import is_partly_here, to_shards
from rfho.outer.snapshot import Plain, Sections

SETTINGS, DATA, FUNCTIONS = "settings", "data", "functions"

_PACKAGES = ("rfho", "jax", "jaxlib", "optax", "equinox")
_WHOLE, _BLOCK = 2**30, 2**20
_WORDS = (str, int, float, complex, bool, bytes, type(None), np.dtype, enum.Enum)


class Part(NamedTuple):
    """One part of a run: in which section it belongs, its name, and its words or digest."""

    section: str
    name: str
    value: str


def fingerprint(**parts: Any) -> Sections:
    """What the named parts of a run are, and where it runs.

    Args:
        **parts: a problem, a method, an optimiser, hyperparameters, in whatever containers.

    Example:
        >>> sections = fingerprint(rate=0.1, loss=lambda w: w**2)
        >>> sections["settings"], list(sections["functions"])
        ({'rate': '0.1'}, ['loss'])
    """
    found = _Walk()
    for name, part in parts.items():
        found.visit(part, name)
    sections: Sections = {"versions": dict(_versions()), "device": dict(_device())}
    sections |= {SETTINGS: {}, DATA: {}, FUNCTIONS: {}}
    for part in found.parts:
        names = itertools.chain([part.name], (f"{part.name} ({i})" for i in itertools.count(2)))
        free = next(name for name in names if name not in sections[part.section])
        sections[part.section][free] = part.value
    return sections


def differences(
    then: Mapping[str, Mapping[str, Plain]],
    now: Mapping[str, Mapping[str, Plain]],
    *,
    allow: Iterable[str] = (),
) -> list[str]:
    """What differs between two fingerprints, one sentence for each part.

    Args:
        then: of the run that was interrupted.
        now: of the one that would go on.
        allow: parts that may differ, by their name or that of their section.
    """
    allowed = set(allow)
    said: list[str] = []
    for section in now:
        before, after = then.get(section, {}), now[section]
        for name in dict.fromkeys([*before, *after]):
            same = name in before and name in after and before[name] == after[name]
            if not (same or {section, name} & allowed):
                said.append(_sentence(section, name, before.get(name), after.get(name)))
    return said


def _sentence(section: str, name: str, before: Plain, after: Plain) -> str:
    if before is None or after is None:
        return f"{name} ({section}) is {'new' if before is None else 'gone'}"
    if section in (DATA, FUNCTIONS):
        return f"{name} ({section}) is another one"
    return f"{name} ({section}) was {before} and is {after}"


def _versions() -> Iterator[tuple[str, Plain]]:
    for package in _PACKAGES:
        yield package, importlib.metadata.version(package)


def _device() -> Iterator[tuple[str, Plain]]:
    devices = jax.devices()
    yield "kind", f"{devices[0].platform} {devices[0].device_kind}"
    yield "count", len(devices)
    yield "float width", 64 if jax.config.jax_enable_x64 else 32  # type: ignore[attr-defined]
    yield "matmul precision", str(jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]
    yield "XLA_FLAGS", os.environ.get("XLA_FLAGS", "")


class _Walk:
    """Visits everything that a value is made of, each once."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._seen: dict[int, Any] = {}  # the values too, so that no number is given again

    def visit(self, value: Any, name: str) -> None:
        if isinstance(value, _WORDS):
            self.parts.append(Part(SETTINGS, name, _words(value)))
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            self.parts.append(Part(DATA, name, _digest_of_array(value)))
        elif isinstance(value, types.FunctionType):
            self._visit_function(value, name)
        elif isinstance(value, functools.partial):
            self._visit_all({"": value.func, "args": value.args, **value.keywords}, name)
        elif isinstance(value, types.MethodType):
            self._visit_all({"": value.__func__, "self": value.__self__}, name)
        elif isinstance(value, type | types.BuiltinFunctionType | types.ModuleType | np.ufunc):
            self.parts.append(Part(FUNCTIONS, name, getattr(value, "__qualname__", value.__name__)))
        else:
            self._visit_all(_members(value), name)

    def _visit_all(self, members: Mapping[Any, Any], name: str) -> None:
        for key, member in members.items():
            inner = key if isinstance(key, str) else repr(key)
            self.visit(member, f"{name}.{inner}" if inner and name else name or inner)

    def _visit_function(self, function: types.FunctionType, name: str) -> None:
        digest = hashlib.sha256(_source(function).encode()).hexdigest()
        self.parts.append(Part(FUNCTIONS, name, digest))
        closed = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        inner = {variable: cell.cell_contents for variable, cell in closed if _is_filled(cell)}
        inner |= {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
        inner |= function.__kwdefaults__ or {}
        self._visit_all(inner | _called(function), name)


def _members(value: Any) -> dict[Any, Any]:
    """What a container or an object holds, with what tells its kind."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple | set | frozenset):
        names = getattr(value, "_fields", range(len(value)))
        ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return dict(zip(names, ordered, strict=True))
    kind = {"kind": type(value).__qualname__}
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return kind | {field: getattr(value, field) for field in fields if hasattr(value, field)}
    wrapped = getattr(value, "__wrapped__", None)  # of jit, custom_vjp and others
    if wrapped is not None:
        return {"": wrapped}
    return kind | _public(value)


def _public(value: Any) -> dict[str, Any]:
    return {key: each for key, each in getattr(value, "__dict__", {}).items() if key[:1] != "_"}


def _called(function: types.FunctionType) -> dict[str, Any]:
    """What a function names outside of itself; nothing if it is installed, as its version tells all."""
    if _is_installed(function):
        return {}
    known = {name: function.__globals__.get(name) for name in _names(function.__code__)}
    return {
        name: value
        for name, value in known.items()
        if not isinstance(value, types.ModuleType | type | types.NoneType)
    }


def _is_installed(function: types.FunctionType) -> bool:
    if (function.__module__ or "").partition(".")[0] in _PACKAGES:
        return True
    file = os.path.realpath(function.__code__.co_filename)
    paths = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return any(file.startswith(os.path.realpath(path) + os.sep) for path in paths)


def _names(code: types.CodeType) -> list[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [*code.co_names, *(name for each in inner for name in _names(each))]


def _source(function: types.FunctionType) -> str:
    """The text of a function as Python would write it; without a text its instructions."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        tree = None
    if tree is not None and function.__name__ != "<lambda>":
        return ast.unparse(tree)
    lambdas = _lambdas(function)
    return lambdas if lambdas else _instructions(function.__code__)


def _lambdas(function: types.FunctionType) -> str:
    """The text of a lambda: those of its line in which its instructions stand."""
    try:
        tree = ast.parse("".join(inspect.findsource(function)[0]))
    except (OSError, TypeError, SyntaxError):
        return ""
    places = [place for place in function.__code__.co_positions() if place[0] and place[3]]
    inside = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda) and all(_is_inside(node.body, *place) for place in places)
    ]
    return ast.unparse(inside[-1]) if inside else ""


def _is_inside(
    body: ast.expr, line: int | None, last: int | None, column: int | None, end: int | None
) -> bool:
    if line is None or last is None or column is None or end is None:
        return True
    begin, stop = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    return begin <= (line, column) and (last, end) <= stop


def _instructions(code: types.CodeType) -> str:
    consts = [
        _instructions(const) if isinstance(const, types.CodeType) else repr(const)
        for const in code.co_consts
    ]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, consts))


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _words(value: Any) -> str:
    said = repr(value)
    return said if len(said) < 200 else hashlib.sha256(said.encode()).hexdigest()


def _digest_of_array(array: Any) -> str:
    """Of type, shape and bytes; of a very large one of blocks that are spread over it."""
    if is_partly_here(array):
        spec, shards = to_shards(array)
        parts = zip(spec.places(), map(_digest_of_array, shards), strict=True)
        return hashlib.sha256(repr((spec.shape, *parts)).encode()).hexdigest()
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    if array.dtype.hasobject:
        digest.update(repr(array).encode())
    elif array.nbytes <= _WHOLE:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    else:
        flat = array.reshape(-1)
        count = max(1, _BLOCK // array.itemsize)
        for start in np.linspace(0, flat.size - count, 256, dtype=int):
            digest.update(np.ascontiguousarray(flat[start : start + count]).view(np.uint8).data)
    return digest.hexdigest()
