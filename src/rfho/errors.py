"""How a run can end, each with its sentence, and the exceptions of the library.

Misuse is an exception before anything is traced. What goes wrong while running is a member of
`Result`: `tune` and `check_hyper_gradient` raise it as a `HyperGradientError` unless told not to.
"""

import enum
import importlib
import math
from numbers import Integral, Real
from typing import Any


class Result(enum.Enum):
    """Why a run stopped, or a check was not passed.

    Example:
        >>> import rfho
        >>> rfho.Result.STEPS_DONE.value
        'all outer steps that were asked for are done'
    """

    STEPS_DONE = "all outer steps that were asked for are done"
    CONVERGED = "the outer step became shorter than the tolerance"
    HORIZON_REACHED = "the one training run of an online method came to its horizon"
    STOPPED = "the caller stopped the run"
    FAILED = "a function of the caller failed"
    PROCESS_LOST = "another process of the run ended or cannot be reached"
    NON_FINITE_VALUE = "the objective became NaN or infinite"
    NON_FINITE_HYPERGRADIENT = "the hypergradient became NaN or infinite"
    NON_FINITE_HYPER = "an outer update made a hyperparameter NaN or infinite"
    DISAGREES = "a derivative disagrees with finite differences"
    NOT_SYMMETRIC = "an adjoint system is not symmetric, which its solver takes for granted"
    NEGATIVE_CURVATURE = "training has not ended at a minimum: a curvature is negative"
    SINGULAR = "an adjoint system is singular and has no solution"
    DIVERGING = "the series that solves an adjoint system diverges"
    UNSOLVED = "the solver of an adjoint system broke down"
    INACCURATE = "the error bound of a hypergradient is above what was asked for"
    NO_ROOM = "the buffer of a reversible run has no room for what momentum loses"
    NOT_RETURNED = "a run that was undone did not come back to its start"
    UNDECIDED = "finite differences are too coarse to confirm a derivative"

    @property
    def failed(self) -> bool:
        """Whether this is a failure rather than an end."""
        return self not in (
            Result.STEPS_DONE,
            Result.CONVERGED,
            Result.HORIZON_REACHED,
            Result.STOPPED,
        )


class HyperGradientError(RuntimeError):
    """A run-time failure: its `result` says which, its message says where and what to do."""

    solution: Any = None
    """The `Solution` of the run that failed, with all that was found before; None outside of a run."""

    def __init__(self, result: Result, message: str) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process it goes without its solution, which holds the user's functions and open files.
        return type(self), (self.result, str(self))


class UserFunctionError(TypeError):
    """A function of the user failed when it was first traced; the message names it, its cause is the error."""


class DataNotFoundError(FileNotFoundError):
    """A data file is in none of the folders and could not be downloaded."""


class DataFormatError(ValueError):
    """A data file is truncated or is not what its name promises."""


class SnapshotError(RuntimeError):
    """A snapshot cannot be used: all that there are are damaged, or it is one of another run."""


class WriteError(OSError):
    """A file could not be written; what was there before it still is."""

    def __str__(self) -> str:
        return str(self.strerror)


class ShelfError(OSError):
    """A state could not be laid onto a shelf, or did not come back from it as it was."""


def positive_int(value: Any, name: str, of: str) -> int:
    """``value``, the argument ``name`` of ``of``, if it is an integer (of any kind) of 1 or more.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{of} got {name}={value!r}, but it must be an int of 1 or more")
    return int(value)


def positive_number(value: Any, name: str, of: str, *, at_most: float = math.inf) -> float:
    """``value``, the argument ``name`` of ``of``, if it is a positive, finite number of any kind up to ``at_most``.

    Raises:
        ValueError: it is not.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not 0 < number <= at_most or number == math.inf:
        bound = "" if at_most == math.inf else f" of at most {at_most:g}"
        raise ValueError(f"{of} got {name}={value!r}, but it must be a positive number{bound}")
    return number


def needed(module: str, *, by: str, extra: str) -> Any:
    """A module that only an extra installs, imported where it is used.

    Args:
        module: its full name.
        by: what needs it.
        extra: of this library.

    Raises:
        ImportError: it is not installed; the message has the line that installs it.

    Example:
        >>> import rfho.errors
        >>> rfho.errors.needed("no_such_module", by="Nothing", extra="cli")
        Traceback (most recent call last):
        ImportError: Nothing needs no_such_module: pip install 'rfho[cli]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(f"{by} needs {package}: pip install 'rfho[{extra}]'") from error
