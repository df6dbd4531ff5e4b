"""The course of a tuning run for people: a row for each outer step, pictures, a table."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from rfho.memory import is_partly_here, on_device
from rfho.outer import Report, Standing, named, norm
from rfho.runs.pictures import curves
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import make_table

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_PICTURES = 30
_DRAWN = 2000

Row = dict[str, Any]


def row_of(report: Report, *, with_member: bool) -> Row:
    """A report in numbers; of an array its range and its mean.

    Where arrays lie over several processes this is computed by all of them, who have to call it together.

    Example:
        >>> row_of(
        ...     Report(1, {"lr": np.float64(0.5)}, 2.0, {"lr": np.float64(3.0)}, {}, 0.25),
        ...     with_member=False,
        ... )
        {'step': 1, 'objective': 2.0, 'lr': 0.5, 'hypergradient norm': 3.0, 'seconds': 0.25}
    """
    row: Row = {"step": report.step} | ({"member": report.member} if with_member else {})
    for name, value in named(report.value, "objective"):
        row[name] = float(value)
    for name, leaf in report.learned():
        row |= {name: leaf.item()} if leaf.size == 1 else _range(name, leaf)
    for name, leaf in named(report.hyper, "hyper"):
        if is_partly_here(leaf):
            row |= _named_range(name, _over_processes(leaf)[:3])
    row |= {"retries": report.retries} if report.retries else {}
    gradient = jax.tree.leaves(report.hypergradient)
    last = {
        "hypergradient norm": norm(
            np.array(_over_processes(leaf)[-1]) if is_partly_here(leaf) else leaf
            for leaf in gradient
        ),
        "seconds": report.seconds,
    }
    return _finite(row | report.stats | last)


def add_course(folder: RunFolder, standings: Sequence[Standing], findings: Sequence[str]) -> None:
    """Adds pictures of the objective and of every hyperparameter, and a table of where all ended."""
    longest = max(len(one.history) for one in standings)
    if not longest:
        return
    stride = -(-longest // _DRAWN)
    histories = [one.history[::stride] for one in standings if one.history]
    starts = ["" if len(standings) == 1 else f", start {one[0].member}" for one in histories]
    drawn = _over_steps(_objectives(histories, starts), stride, 0, label="objective")
    folder.add_picture("objective", drawn, "The objective at each outer step.")
    learned = [[dict(report.learned()) for report in history] for history in histories]
    for number, name in enumerate(list(learned[0][0])[:_MOST_PICTURES]):
        drawn = _over_steps(_course(learned, starts, name), stride, 1, label=name)
        folder.add_picture(f"hyper-{number}-{_slug(name)}", drawn, f"{name} after each outer step.")
    folder.add_table("ends", _ends(standings))
    if findings:
        rows = [[finding] for finding in findings]
        folder.add_table("findings", make_table("Findings", ["what gives rise to doubt"], rows))


def _over_steps(series: Mapping[str, np.ndarray], stride: int, first: int, *, label: str) -> Figure:
    places = {name: first + stride * np.arange(len(line)) for name, line in series.items()}
    return curves(series, places, x_label="outer step", y_label=label)


def _ends(standings: Sequence[Standing]) -> Any:
    columns = ["start", "steps", "objective before", "best objective", "at step", "seconds"]
    rows = [
        [
            member,
            len(one.history),
            _sum(one.history[0].value) if one.history else None,
            None if one.best is None else _sum(one.best.value),
            None if one.best is None else one.best.step,
            sum(report.seconds for report in one.history),
        ]
        for member, one in enumerate(standings)
    ]
    return make_table("Where it ended", columns, rows)


def _objectives(
    histories: Sequence[Sequence[Report]], starts: Sequence[str]
) -> dict[str, np.ndarray]:
    """A curve of each objective and member."""
    names = [name for name, _ in named(histories[0][0].value, "objective")]
    return {
        f"{name}{start}": np.array(
            [float(dict(named(report.value, "objective"))[name]) for report in history]
        )
        for start, history in zip(starts, histories, strict=True)
        for name in names
    }


def _course(
    learned: Sequence[Sequence[Mapping[str, np.ndarray]]], starts: Sequence[str], name: str
) -> dict[str, np.ndarray]:
    """A curve of a number for each member; of an array its quantiles, of the first member alone."""
    arrays = [np.array([numbers[name] for numbers in each]) for each in learned]
    if arrays[0][0].size == 1:
        return {f"{name}{start}": np.ravel(a) for start, a in zip(starts, arrays, strict=True)}
    flat = arrays[0].reshape(len(arrays[0]), -1).astype(float)
    levels = np.quantile(flat, _QUANTILES, axis=1)
    return {f"{100 * level:g} %": line for level, line in zip(_QUANTILES, levels, strict=True)}


def _range(name: str, leaf: np.ndarray) -> Row:
    numbers = leaf.astype(float)
    return _named_range(name, [float(numbers.min()), float(numbers.mean()), float(numbers.max())])


def _named_range(name: str, numbers: Sequence[float]) -> Row:
    return {
        f"{name} {what}": each for what, each in zip(("min", "mean", "max"), numbers, strict=True)
    }


def _over_processes(leaf: Any) -> list[float]:
    """The lowest number of an array, their mean, the highest, and their norm, found where it lies."""
    return np.asarray(_numbers(on_device(leaf)).addressable_data(0)).tolist()


@jax.jit
def _numbers(leaf: Any) -> Any:
    return jnp.stack([leaf.min(), leaf.mean(), leaf.max(), jnp.linalg.norm(leaf.ravel())])


def _finite(row: Row) -> Row:
    """As JSON holds it: None for what is not finite."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in row.items()
    }


def _sum(value: Any) -> float:
    return sum(map(float, jax.tree.leaves(value)))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "value"
