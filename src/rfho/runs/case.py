"""A tuning problem in a file of its own, as the command line is given it: ``FILE.py:problem``.

The file says by its names what `rfho.tune` takes: `hyper`, and, where they are not the defaults, `method`,
`optim`, `domain`, `steps`, `tolerance` and `retry`.
"""

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import rfho
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.outer import named
from rfho.typing import Hyper, PyTree

_DEFAULT: rfho.Tuner = rfho.Tuner()


class CaseError(ValueError):
    """A file that cannot be tuned; one line that says why and how to mend it."""


class Case(NamedTuple):
    """What a file says.

    Attributes:
        problem: what is tuned.
        hyper: λ_0.
        method: as in `rfho.tune`, as all that follow.
        optim: the outer optimiser.
        domain: of λ.
        steps: outer steps.
        tolerance: when to stop earlier.
        retry: when to go back after a failure.
    """

    problem: rfho.Problem
    hyper: Hyper
    method: AbstractHyperGradient = _DEFAULT.method
    optim: optax.GradientTransformation = _DEFAULT.optim
    domain: PyTree = rfho.Reals()
    steps: int | None = None
    tolerance: float = 0.0
    retry: rfho.Retry | None = None


def read_case(target: str) -> Case:
    """Runs a file and takes a problem from it.

    Args:
        target: ``FILE.py:NAME``. The name is of a `rfho.Problem`, or of a function without arguments that
            makes one; without it, ``problem``.

    Raises:
        CaseError: there is no such file or name, the file fails, or it does not say what `hyper` is.
    """
    file, _, name = target.partition(":")
    module = _run(Path(file))
    problem = _named(module, name or "problem", file)
    if callable(problem) and not isinstance(problem, rfho.Problem):
        problem = _called(problem, file)
    if not isinstance(problem, rfho.Problem):
        raise CaseError(
            f"{name or 'problem'} in {file} is of type {type(problem).__name__}, but it must be a rfho.Problem "
            "or a function without arguments that returns one"
        )
    others = {key: getattr(module, key) for key in Case._fields[2:] if hasattr(module, key)}
    return Case(problem, _named(module, "hyper", file), **others)


def started(hyper: Hyper, assignments: Sequence[str]) -> Hyper:
    """λ_0 with other values for some leaves.

    Args:
        hyper: λ_0.
        assignments: ``NAME=NUMBER``; the name of a leaf is its path with dots, as a run prints it, or ``hyper``
            where it is all there is; every entry of an array gets the number.

    Raises:
        CaseError: there is no such leaf, or no number.

    Example:
        >>> started({"lr": 0.1, "decay": {"first": 1.0}}, ["decay.first=0.5"])
        {'decay': {'first': 0.5}, 'lr': 0.1}
        >>> started(0.1, ["hyper=0.5"])
        0.5
    """
    values, structure = jax.tree.flatten(hyper)
    names = [name for name, _ in named(hyper, "hyper")]
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise CaseError(f"cannot read --set {assignment!r}: write NAME=NUMBER")
        if name not in names:
            raise CaseError(
                f"--set {assignment!r}: {did_you_mean(name, names)}the hyperparameters are {', '.join(names)}"
            )
        place = names.index(name)
        values[place] = _filled(values[place], text, assignment)
    return jax.tree.unflatten(structure, values)


@contextmanager
def saying_where(target: str) -> Generator[None]:
    """Around verbs: what does not fit, or fails when it is first traced, is said with its line in the file.

    Args:
        target: as in `read_case`.

    Raises:
        CaseError: instead of a TypeError or a ValueError.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CaseError(_where(error, Path(target.partition(":")[0]))) from error


def _filled(leaf: Any, text: str, assignment: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        raise CaseError(f"--set {assignment!r}: {text!r} is not a number") from None
    if isinstance(leaf, float):
        return number
    if not hasattr(leaf, "dtype"):
        kind = type(leaf).__name__
        raise CaseError(f"--set {assignment!r}: it is of type {kind}: change it in the file")
    return np.full(np.shape(leaf), number, leaf.dtype)


def _run(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise CaseError(f"there is no Python file {path}: write FILE.py:problem")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CaseError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # As by python FILE.py: what lies beside it can be imported, and dataclasses find the module that they are in.
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CaseError(_where(error, path)) from error
    finally:
        sys.path.pop(0)
    return module


def _called(function: Any, file: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise CaseError(_where(error, Path(file))) from error


def _where(error: Exception, path: Path) -> str:
    """The line of the file in which it failed, and how."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {type(error).__name__}: {error}"


def _named(module: ModuleType, name: str, file: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    known = [key for key in vars(module) if not key.startswith("_")]
    meant = "λ_0, as rfho.tune takes it" if name == "hyper" else "a rfho.Problem"
    raise CaseError(f"{file} has no name {name!r} for {meant}: {did_you_mean(name, known)}add it")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A question with the known name that is nearest to an unknown one; nothing if none is near."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""
