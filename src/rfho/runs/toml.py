"""The values of a flat TOML file, as TOML writes them (https://toml.io/en/v1.0.0).

Python reads TOML but does not write it.
"""

import math
from collections.abc import Sequence
from typing import cast


def toml_value(value: object) -> str:
    """A string, integer, finite float, bool or sequence of those.

    Raises:
        TypeError: any other value.

    Example:
        >>> toml_value(("digits", 1e-05, True))
        '["digits", 1e-05, true]'
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(_escaped(character) for character in value) + '"'
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case list() | tuple():
            elements = cast("Sequence[object]", value)
            return f"[{', '.join(toml_value(element) for element in elements)}]"
        case _:
            raise TypeError(f"{value!r} cannot be a setting: a flat TOML file does not hold it")


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character < " " or character == "\x7f":
        return f"\\u{ord(character):04x}"
    return character
