"""What is asked of a count: one sentence for all that take one."""

from typing import Any


def positive_int(value: Any, name: str, of: str) -> int:
    """``value``, the argument ``name`` of ``of``, if it is an int of 1 or more.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{of} got {name}={value!r}, but it must be an int of 1 or more")
    return value
