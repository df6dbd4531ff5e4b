"""What JAX compiles."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs that are compiled meanwhile."""
    names: list[str] = []

    def heard(event: str, seconds: float, **about: Any) -> None:
        if event == _COMPILED:
            names.append(str(about.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
