"""JSON that somebody else wrote: every value is compared with a type before anything uses it.

Types are those of annotations: numbers, text, bools, None, unions, lists, tuples of any length, mappings by
text, and `NamedTuple` classes, whose fields are the keys. Numbers are finite, texts can be written down
again, and no key comes twice.
"""

import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from rfho.files.packed import read_bytes
from rfho.files.refusal import damaged, parsing

_MOST = 2**20


def read_json(path: Path, kind: Any, most: int = _MOST) -> Any:
    """The value that a JSON file holds.

    Raises:
        DataFormatError: no JSON, larger than ``most`` bytes, or of another type; the message names the
            place in it and what was expected.
    """
    return from_json(read_bytes(path, most), kind, path=path)


def from_json(text: bytes | str, kind: Any, *, path: Path, place: str = "") -> Any:
    """The value that a text holds, which stands at ``place`` of the file ``path``.

    Raises:
        DataFormatError: as `read_json`.
    """
    at = f"{place} of " if place else ""
    with parsing(path):  # too deep is a RecursionError, too many digits a ValueError
        content = json.loads(text, parse_constant=_no_number, object_pairs_hook=_each_once)
    try:
        return _checked(content, kind, "")
    except _WrongError as error:
        raise damaged(path, f"is not as expected: {at}{error}") from None


class _WrongError(Exception):
    def __init__(self, place: str, value: Any, kind: Any) -> None:
        match value:
            case dict():
                said = f"an object with the keys {', '.join(sorted(value)) or 'none'}"
            case list():
                said = f"a list of {len(value)}"
            case _:
                said = json.dumps(value)
        short = said if len(said) < 80 else f"{said[:77]}…"
        super().__init__(f"{place or 'it'} is {short}, where {_named(kind)} was expected")


def _checked(value: Any, kind: Any, place: str) -> Any:
    """The value as ``kind`` has it."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _any_of(value, kind, place)
    if origin in (list, tuple) and type(value) is list:
        inner = get_args(kind)[0]
        return origin(_checked(each, inner, f"{place}[{i}]") for i, each in enumerate(value))
    if origin in (dict, Mapping) and type(value) is dict:
        inner = get_args(kind)[1]
        return {key: _checked(each, inner, f"{place}[{key!r}]") for key, each in value.items()}
    if type(value) is dict and hasattr(kind, "_fields"):
        return _record(cast("dict[str, Any]", value), kind, place)
    check = _PLAIN.get(kind)
    if check is None or not check(value):
        raise _WrongError(place, value, kind)
    return float(cast("Any", value)) if kind is float else value


def _any_of(value: Any, kind: Any, place: str) -> Any:
    for each in get_args(kind):
        try:
            return _checked(value, each, place)
        except _WrongError:
            continue
    raise _WrongError(place, value, kind)


def _record(value: dict[str, Any], kind: Any, place: str) -> Any:
    hints, defaults = get_type_hints(kind), kind._field_defaults
    fields = {name: value.get(name, defaults.get(name)) for name in kind._fields}
    if value.keys() - hints.keys() or hints.keys() - value.keys() - defaults.keys():
        raise _WrongError(place, value, kind)
    dot = f"{place}." if place else ""
    return kind(**{name: _checked(each, hints[name], dot + name) for name, each in fields.items()})


def _is_text(value: Any) -> bool:
    return type(value) is str and not any("\ud800" <= character <= "\udfff" for character in value)


_PLAIN: dict[Any, Callable[[Any], bool]] = {
    float: lambda value: type(value) in (int, float) and abs(value) <= sys.float_info.max,
    int: lambda value: type(value) is int,
    bool: lambda value: type(value) is bool,
    str: _is_text,
    types.NoneType: lambda value: value is None,
}


def _named(kind: Any) -> str:
    if hasattr(kind, "_fields"):
        return f"a record with the keys {', '.join(kind._fields)}"
    return getattr(kind, "__name__", "") if get_origin(kind) is None else str(kind)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key comes twice")
    if not all(map(_is_text, content)):
        raise ValueError("a key is no text that can be written down")
    return content
