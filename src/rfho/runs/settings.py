"""An experiment's settings: a frozen dataclass whose every field says what it means and what fits.

Settings come from the experiment's own quick or full values, a TOML file, and ``key=value``
assignments, each checked in the same way: an unknown key, a value of another type, a number that
is not finite or out of range is a `SettingsError` of one line, which names the key, the value and
the fix.

Example:
    >>> @dataclasses.dataclass(frozen=True)
    ... class RunSettings:
    ...     steps: int = setting(10, "outer steps", at_least(1))
    >>> assigned(RunSettings(), ["steps=20"])
    RunSettings(steps=20)
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

import tomli_w

from rfho.errors import DataFormatError
from rfho.files import parsing, read_bytes

_MOST = 2**20

S = TypeVar("S")
T = TypeVar("T")

Check = Callable[[Any], str | None]
"""What is wrong with a value ("must be …"), or None; looks at each element of a list."""


class SettingsError(ValueError):
    """Settings that cannot be used; one line that says why and how to mend it."""


class Field(NamedTuple):
    """One setting.

    Attributes:
        key: its name.
        kind: int, float, str or bool; of the elements for a list.
        is_list: whether it is a tuple of any length but zero.
        meaning: what it says.
        check: its range.
    """

    key: str
    kind: type
    is_list: bool
    meaning: str
    check: Check

    @property
    def type_name(self) -> str:
        """The type in words."""
        return f"list of {self.kind.__name__}" if self.is_list else self.kind.__name__


def setting(default: T, meaning: str, check: Check | None = None) -> T:
    """A field of a settings dataclass with its meaning and the check of its range."""
    metadata = {"meaning": meaning, "check": check or _anything}
    return dataclasses.field(default=default, metadata=metadata)


def at_least(lowest: int | float) -> Check:
    """A check: the value is ``lowest`` or more."""
    return lambda value: None if value >= lowest else f"must be at least {lowest:g}"


def above(lowest: int | float) -> Check:
    """A check: the value is more than ``lowest``."""
    return lambda value: None if value > lowest else f"must be greater than {lowest:g}"


def between(lowest: int | float, highest: int | float) -> Check:
    """A check: the value lies in the closed interval."""
    complaint = f"must be between {lowest:g} and {highest:g}"
    return lambda value: None if lowest <= value <= highest else complaint


def one_of(*choices: str) -> Check:
    """A check: the value is one of a few words; the nearest is suggested."""

    def check(value: str) -> str | None:
        if value in choices:
            return None
        return f"must be one of {', '.join(choices)}{_suggestion(value, choices)}"

    return check


def fields_of(settings_type: type) -> tuple[Field, ...]:
    """The settings of a type, in the order in which they are written there.

    Raises:
        TypeError: not a dataclass, or a field is of a type that a flat TOML file cannot hold.
    """
    hints = get_type_hints(settings_type)
    return tuple(
        _field(entry.name, hints[entry.name], entry.metadata)
        for entry in dataclasses.fields(settings_type)
    )


def changed(settings: S, changes: Mapping[str, object]) -> S:
    """Settings with other values for some keys, all checked.

    Raises:
        SettingsError: an unknown key, or a value of the wrong type or range.
    """
    known = {field.key: field for field in fields_of(type(settings))}
    checked = {key: _value(_known(key, value, known), value) for key, value in changes.items()}
    return cast("S", dataclasses.replace(cast("Any", settings), **checked))


def assigned(settings: S, assignments: Sequence[str]) -> S:
    """Settings changed by assignments ``key=value`` as one writes them on the command line.

    A list is written ``key=1,2,3`` or ``key=[1, 2, 3]``.

    Raises:
        SettingsError: as `changed`; or an assignment has no ``=``, or its value cannot be read.
    """
    known = {field.key: field for field in fields_of(type(settings))}
    changes: dict[str, object] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not (key and equals):
            raise SettingsError(f"cannot read the setting {assignment!r}: write key=value")
        changes[key] = _parsed(_known(key, text, known), text)
    return changed(settings, changes)


def read_toml(path: Path) -> dict[str, object]:
    """The keys and values of a flat TOML file, not yet checked against any settings.

    Raises:
        SettingsError: the file cannot be read or is no TOML.
    """
    try:
        content = read_bytes(path, _MOST)
    except DataFormatError as error:
        raise SettingsError(f"the settings file {error}") from error
    try:
        with parsing(path):  # no UTF-8, no TOML, or nested too deeply
            return tomllib.loads(content.decode("utf-8"))
    except DataFormatError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error.__cause__}") from error


def to_toml(settings: object) -> str:
    """The settings as a flat TOML file that `read_toml` and `changed` turn into the same ones."""
    lines: list[str] = []
    for field in fields_of(type(settings)):
        comment = f"# {field.meaning}\n" if field.meaning else ""
        lines.append(comment + tomli_w.dumps({field.key: getattr(settings, field.key)}))
    return "".join(lines)


def _anything(value: object) -> None:
    """The check of a setting without a range."""


def _field(key: str, hint: Any, metadata: Mapping[str, Any]) -> Field:
    is_list = get_origin(hint) is tuple and get_args(hint)[1:] == (...,)
    kind = get_args(hint)[0] if is_list else hint
    if kind not in (int, float, str, bool):
        raise TypeError(
            f"the setting {key!r} is annotated {hint}: use int, float, str, bool or tuple[…, ...] "
            "of one of them"
        )
    meaning, check = metadata.get("meaning", ""), metadata.get("check", _anything)
    return Field(key, kind, is_list, meaning, check)


def _known(key: str, value: object, known: Mapping[str, Field]) -> Field:
    if key in known:
        return known[key]
    raise SettingsError(
        f"unknown setting {_short(key)} (given {_short(value)}){_suggestion(key, tuple(known))} "
        f"(the settings are {', '.join(known)})"
    )


def _suggestion(word: str, words: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f": did you mean {nearest[0]}?" if nearest else ""


def _value(field: Field, value: object) -> object:
    """A typed value (of a TOML file, say) as the field stores it."""
    if not field.is_list:
        return _element(field, value)
    if not isinstance(value, list | tuple) or not value:
        raise _wrong(field, value, "must be a list with at least one element, such as [1, 2]")
    return tuple(_element(field, element) for element in cast("Sequence[object]", value))


def _element(field: Field, value: object) -> object:
    value = _typed(field, value)
    complaint = field.check(value)
    if complaint is not None:
        raise _wrong(field, value, complaint)
    return value


def _typed(field: Field, value: object) -> object:
    if field.kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= 1e308:  # an int may be too large, a float NaN
            raise _wrong(field, value, "must be a finite number")
        return float(value)
    if isinstance(value, str) and not _can_be_written(value):
        raise _wrong(field, value, "must be a text that can be written down")
    if not isinstance(value, field.kind) or (isinstance(value, bool) and field.kind is not bool):
        raise _wrong(field, value, f"must be {_EXAMPLES[field.kind]}")
    return value


def _can_be_written(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _parsed(field: Field, text: str) -> object:
    """The text of an assignment, as a value that `_value` can check."""
    if not field.is_list:
        return _read(field, text)
    if text.startswith("[") != text.endswith("]"):
        raise _wrong(
            field, text, "must have both brackets of its list or none: write [1, 2] or 1,2"
        )
    inner = text.removeprefix("[").removesuffix("]").strip().removesuffix(",")
    return [_read(field, part.strip()) for part in inner.split(",")] if inner else []


def _read(field: Field, text: str) -> object:
    unquoted = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if field.kind is str:
        return unquoted
    if field.kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return field.kind(text)
    except ValueError:
        return text  # of the wrong type: the check says so


def _wrong(field: Field, value: object, complaint: str) -> SettingsError:
    meaning = f" ({field.meaning})" if field.meaning else ""
    return SettingsError(f"{field.key} = {_short(value)}: {field.key}{meaning} {complaint}")


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) < 200 else f"{said[:197]}…"


_EXAMPLES = {
    int: "a whole number, such as 3",
    float: "a number, such as 0.1",
    str: 'a text, such as "mnist"',
    bool: "true or false",
}
