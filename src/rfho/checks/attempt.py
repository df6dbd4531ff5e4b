"""Derivatives that are not to be had: a loop of unknown length has no reverse mode, a custom_vjp no forward mode."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class NoDerivative(NamedTuple):
    """What JAX says where a program has no derivative in some mode."""

    account: str


def attempted(run: Callable[[], T]) -> T | NoDerivative:
    """What ``run`` gives, if what it differentiates can be differentiated in its mode."""
    try:
        return run()
    except (TypeError, ValueError, NotImplementedError) as error:
        account = str(error).partition("\n")[0].rstrip(".")
        words = ("differentiation", "forward-mode", "jvp")
        if not any(word in account.lower() for word in words):
            raise
        return NoDerivative(account)
