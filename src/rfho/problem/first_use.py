"""What a user's function is told when it fails as it is first traced.

JAX speaks of tracers and jaxprs; whoever tunes a rate has written a loss, an optimiser, a stream. The first
trace of each of these functions is wrapped once, so that the sentence names the argument of rfho, the
function, and what to do.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import errors

from rfho.errors import HyperGradientError, UserFunctionError
from rfho.typing import PyTree

_OURS = (UserFunctionError, HyperGradientError, MemoryError)

_SPEAKS_OF_TRACING = {
    errors.TracerIntegerConversionError: (
        "the step t (or another traced number) is used as a Python index: put the batches into one array and "
        "use rfho.Indexed, or load them on the host with rfho.HostStream"
    ),
    errors.TracerBoolConversionError: (
        "it branches on a traced number: write jnp.where or jax.lax.cond; schedules of Optax that do so with "
        "learned parameters are in rfho.schedules in a form that can be traced"
    ),
    errors.TracerArrayConversionError: (
        "it hands a traced array to NumPy: use jax.numpy inside, or rfho.HostStream for data that NumPy loads"
    ),
    errors.ConcretizationTypeError: (
        "it needs the value of a traced number: keep shapes and counts out of what is learned (an int in hyper "
        "is static), and write jnp.where instead of if"
    ),
    errors.UnexpectedTracerError: (
        "it keeps traced values from an earlier call: let it be a pure function of its arguments"
    ),
}


@contextmanager
def first_use(what: str, *, hyper: PyTree = None) -> Generator[None]:
    """While the user's function ``what`` is traced for the first time.

    Raises:
        UserFunctionError: instead of whatever it raises, with that as its cause.
    """
    try:
        yield
    except _OURS:
        raise
    except Exception as error:
        if _is_ours(error):
            raise
        raise UserFunctionError(
            f"{what} failed when it was first traced: {_first_line(error)}; {_remedy(error, hyper)}"
        ) from error


def check_scalar(value: Any, what: str) -> None:
    """Refuses what a loss or an objective returns if it is no floating-point scalar.

    Raises:
        TypeError: it is not; the message says what to return instead.
    """
    if isinstance(value, tuple | dict | list):
        kind = f"a {type(value).__name__} of {len(value)}"
        raise TypeError(
            f"{what} returned {kind}, but it must return one floating-point scalar: return the first alone, or "
            "say has_aux=True where the dynamics take it"
        )
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{what} returned {dtype}{list(shape)}, but it must return a floating-point scalar: take a mean"
        )


def _is_ours(error: Exception) -> bool:
    """Whether this library raised it itself, with a sentence of its own."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    module = "" if at is None else at.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == "rfho" and not isinstance(error, KeyError | IndexError)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__


def _remedy(error: Exception, hyper: PyTree) -> str:
    for kind, remedy in _SPEAKS_OF_TRACING.items():
        if isinstance(error, kind):
            return remedy
    if isinstance(error, KeyError) and isinstance(hyper, dict):
        names = ", ".join(repr(name) for name in hyper)
        return f"hyper has the entries {names}, so if a name is missing there, add it"
    shapes = jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", hyper)
    return f"hyper was {shapes}" if hyper is not None else "see the error above for its place"
