"""What a run says as one flat dictionary of numbers, under names that every tracker takes.

A name is the path of a leaf with "/" between its parts. Characters that some tracker refuses become "_";
should two names become equal by that, the later one is numbered.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

import rfho
from rfho.outer import Report, Start, norm
from rfho.typing import Hyper, PyTree

QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
"""How an array of hyperparameters is summed up."""

_MOST_CHARACTERS = 500
_REFUSED = re.compile(r"[^\w./-]+")

Setting = str | int | float | bool
"""A parameter of a run, as trackers take it."""


def scalars(report: Report) -> dict[str, float]:
    """The numbers of an outer step, by name.

    Args:
        report: as `rfho.tune` tells its listeners and `rfho.iterate` yields.

    Returns:
        ``objective``, ``hyper/…`` for each learned leaf (five quantiles of an array), ``hypergradient/…`` (the
        norm of an array), ``norm/hyper`` and ``norm/hypergradient`` over all leaves, ``method/…`` for the
        method's statistics, ``seconds``, and ``retries`` once the run has gone back.

    Example:
        >>> import numpy as np, rfho
        >>> from rfho.tracking import scalars
        >>> hyper = {"lr": np.float32(0.5), "weights": np.arange(5.0)}
        >>> report = rfho.outer.Report(1, hyper, 0.25, {"lr": 3.0, "weights": np.zeros(5)}, {}, 0.1)
        >>> numbers = scalars(report)
        >>> numbers["hyper/lr"], numbers["hyper/weights/median"], numbers["norm/hypergradient"]
        (0.5, 2.0, 3.0)
    """
    gradients = list(_leaves(report.hypergradient))
    hypers = dict(_leaves(report.hyper))
    learned = [(path, hypers[path]) for path, _ in gradients]
    numbers = [
        *_named("objective", _leaves(report.value), float),
        *_named("hyper", learned, _quantiles),
        *_named("hypergradient", gradients, _norm_of_array),
        ("norm/hyper", norm(leaf for _, leaf in learned)),
        ("norm/hypergradient", norm(leaf for _, leaf in gradients)),
        *((f"method/{name}", float(number)) for name, number in report.stats.items()),
        ("seconds", float(report.seconds)),
        *([("retries", float(report.retries))] if report.retries else []),
    ]
    return distinct(numbers)


def parameters(run: Start) -> dict[str, Setting]:
    """What a run is given, by name: method, dynamics, horizon, outer steps, versions, and λ_0.

    The leaves of λ_0 are ``start/…``: numbers and words as they are, arrays by their dtype and shape, functions
    by their names. Of several starts each has its number before its leaves.

    Args:
        run: as listeners are told of it.
    """
    about: list[tuple[str, Any]] = [
        ("method", repr(run.method)),
        ("dynamics", type(run.problem.dynamics).__name__),
        ("horizon", run.problem.horizon),
        ("steps", run.total),
        ("members", len(run.hypers)),
        ("rfho", rfho.__version__),
        ("jax", jax.__version__),
    ]
    for i, hyper in enumerate(run.hypers):
        about += _named(f"{of_member(i, len(run.hypers))}start", _leaves(hyper), _described)
    return distinct([(name, setting(value)) for name, value in about])


def of_member(i: int, count: int) -> str:
    """What stands before the names of member i of several; nothing before those of a single one."""
    return "" if count == 1 else f"{i}/"


def setting(value: Any) -> Setting:
    """``value`` as trackers take it: numbers, words and bools as they are, everything else as a short text."""
    if isinstance(value, bool | int | float):
        return value
    text = " ".join(str(value).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 2]} …"


def distinct(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary under names that every tracker takes; a name that is there already gets a number."""
    found: dict[str, Any] = {}
    for name, value in items:
        name = unique = "/".join(_part(part) for part in name.split("/"))
        number = 1
        while unique in found:
            number += 1
            unique = f"{name}-{number}"
        found[unique] = value
    return found


def _part(part: str) -> str:
    """One part of a name; not empty, and nothing that a path would leave out."""
    part = _REFUSED.sub("_", part)
    return "_" if part in ("", ".", "..") else part


def _leaves(tree: PyTree) -> list[tuple[tuple[Any, ...], Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _named(
    root: str, leaves: Iterable[tuple[tuple[Any, ...], Any]], of: Callable[[Any], Any]
) -> Iterator[tuple[str, Any]]:
    for path, leaf in leaves:
        name = "/".join([root, *(jax.tree_util.keystr((key,), simple=True) for key in path)])
        value = of(leaf)
        if isinstance(value, dict):
            yield from ((f"{name}/{kind}", number) for kind, number in value.items())
        else:
            yield name, value


def _quantiles(leaf: Any) -> float | dict[str, float]:
    numbers = np.asarray(leaf, np.float64)
    if numbers.ndim == 0:
        return float(numbers)
    if numbers.size == 0:
        return {}
    found = np.quantile(numbers, list(QUANTILES.values()))
    return dict(zip(QUANTILES, map(float, found), strict=True))


def _norm_of_array(leaf: Any) -> float | dict[str, float]:
    return float(leaf) if np.ndim(leaf) == 0 else {"norm": norm([leaf])}


def _described(leaf: Hyper) -> Any:
    if isinstance(leaf, bool | int | float | str):
        return leaf
    if hasattr(leaf, "dtype"):
        return leaf.item() if leaf.size == 1 else f"{leaf.dtype}{list(leaf.shape)}"
    return getattr(leaf, "__qualname__", None) or repr(leaf)
