"""Which derivatives of which optimisers are right: measured against finite differences.

Three cases decide: gradients that are never zero, one leaf whose gradient is exactly zero at every
step, and no gradient at all. Each setting of an optimiser and the initial weights are differentiated
by forward and by reverse mode.

    python tests/optimiser_table.py        # measures anew and writes tests/optimisers.json
"""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiler import CHEAPLY
from jax.flatten_util import ravel_pytree
from optimiser_rows import ROWS, Row

import rfho
from rfho.checks import Verdict, derivative, judged, ladder
from rfho.hyper_gradients import ForwardHyperGradient, ReverseHyperGradient

STORED = Path(__file__).with_name("optimisers.json")
MODES = {"forward": ForwardHyperGradient(), "reverse": ReverseHyperGradient()}
HORIZON = 8
START = {"a": np.array([[0.9, -0.6], [0.4, 0.7]]), "b": np.array([-0.8])}
WEIGHTS = "initial weights"

Table = dict[str, dict[str, dict[str, str]]]
"""Case, then mode, then setting, to the verdict."""

# What an optimiser raises where it cannot be traced, lacks an argument, or lacks a derivative.
_REFUSALS = (jax.errors.JAXTypeError, TypeError, ValueError, NotImplementedError)


class Case(NamedTuple):
    """Which leaves have a gradient, and whether ``eps_root`` is at its setting rather than zero."""

    alive: dict[str, float]
    rooted: bool


CASES = {
    "healthy": Case({"a": 1.0, "b": 1.0}, rooted=False),
    "dead": Case({"a": 1.0, "b": 0.0}, rooted=False),
    "zero": Case({"a": 0.0, "b": 0.0}, rooted=False),
    "dead, eps_root": Case({"a": 1.0, "b": 0.0}, rooted=True),
    "zero, eps_root": Case({"a": 0.0, "b": 0.0}, rooted=True),
}


def loss(w, hyper, alive):
    """Smooth, of full rank, and blind to the leaves that are not alive."""
    a, b = alive["a"] * w["a"], alive["b"] * w["b"]
    return (
        0.5 * jnp.sum(jnp.array([[1.0, 0.7], [1.3, 0.5]]) * (a - 0.2) ** 2)
        + 0.4 * jnp.sum((b + 0.1) ** 2)
        + 0.1 * jnp.sin(a[0, 0] * a[1, 1] + a[0, 1] * b[0])
    )


def objective(w, hyper, batch):
    """Sees every weight, dead ones included."""
    return jnp.sum(jnp.array([[1.0, -2.0], [0.5, 1.5]]) * w["a"] ** 2) + jnp.cos(w["b"][0])


def measured(row: Row) -> Table:
    """The verdicts of one optimiser."""
    try:
        return _measured(row, MODES)
    except _REFUSALS:
        parts = [_measured_or_refused(row, mode) for mode in MODES]
        return {case: {k: v for part in parts for k, v in part[case].items()} for case in parts[0]}


def _measured_or_refused(row: Row, mode: str) -> Table:
    try:
        return _measured(row, {mode: MODES[mode]})
    except jax.errors.JAXTypeError:
        verdict = "not traceable"
    except _REFUSALS:
        verdict = "not supported"
    names = [*sorted(row.settings), WEIGHTS]
    return {case: {mode: dict.fromkeys(names, verdict)} for case in _cases(row)}


def _measured(row: Row, modes: dict[str, rfho.hyper_gradients.AbstractHyperGradient]) -> Table:
    cases = _cases(row)
    alive = _stacked([jax.tree.map(jnp.asarray, case.alive) for case in cases.values()])
    points = _stacked([_point(row, case) for case in cases.values()])
    claims, values, single = _evaluated(row, alive, points, modes)
    rounding = float(np.finfo(np.float32 if single else np.float64).eps)
    return {
        name: {
            mode: _by_setting(row, case, claimed[i], np.asarray(points[i]), values[i], rounding)
            for mode, claimed in claims.items()
        }
        for i, (name, case) in enumerate(cases.items())
    }


def _evaluated(
    row: Row,
    alive: Any,
    points: jax.Array,
    modes: dict[str, rfho.hyper_gradients.AbstractHyperGradient],
) -> tuple[Any, np.ndarray, bool]:
    """Flat hypergradients of the modes, the values around each point, and whether it is in float32."""
    _, unravel = ravel_pytree(_hyper(row))
    dynamics = row.dynamics(
        loss, lambda hyper: row.build(**hyper["settings"]), lambda hyper: hyper["start"]
    )

    def problem(alive):
        return rfho.Problem(dynamics, objective, alive, None, HORIZON)

    def gradients(alive, flat):
        found = {}
        for name, method in modes.items():
            estimate, _ = method.estimate(problem(alive), unravel(flat), None)
            found[name] = ravel_pytree(estimate.hypergradient)[0]
        return found

    def value(alive, flat):
        return MODES["forward"].conclude(problem(alive), unravel(flat), None)[0]

    def everything(alive, points, around):
        each = jax.vmap(value, in_axes=(None, 0))
        return jax.vmap(gradients)(alive, points), jax.vmap(each)(alive, around)

    around = _around(points)
    # Not with the backend's optimisation off as well: derivatives of maxima come out wrong where the arguments,
    # computed twice and rounded differently, no longer equal the maximum.
    traced = jax.jit(everything).trace(alive, points, around)
    claims, values = traced.lower().compile(compiler_options=CHEAPLY)(alive, points, around)
    shape = (*points.shape, len(_steps(1.0)))
    single = "f32" in str(traced.jaxpr)
    return jax.tree.map(np.asarray, claims), np.asarray(values).reshape(shape), single


def _by_setting(row, case, claimed, point, values, rounding) -> dict[str, str]:
    verdicts = [_verdict(*args, rounding) for args in zip(claimed, point, values, strict=True)]
    settings = sorted(row.settings)
    found = dict(zip(settings, verdicts, strict=False))
    found[WEIGHTS] = max(verdicts[len(settings) :], key=_SEVERITY.index)
    if "eps_root" in found and not case.rooted:
        # Zero is the end of what it can be: no derivative to compare.
        del found["eps_root"]
    return found


_SEVERITY = ("zero", "exact", "undecided", "wrong", "nan")


def _verdict(claimed: float, at: float, values: np.ndarray, rounding: float) -> str:
    if not np.isfinite(claimed):
        return "nan"
    known = dict(zip(_steps(at), map(float, values), strict=True))
    found = derivative(known.__getitem__, rounding, _first_step(at))
    verdict = judged(float(claimed), found, abs(found.value), rounding=rounding)
    if verdict is Verdict.AGREES:
        return "zero" if abs(claimed) * _first_step(at) <= 100 * rounding * found.size else "exact"
    return "wrong" if verdict is Verdict.DISAGREES else "undecided"


def _around(points: jax.Array) -> jax.Array:
    """All points that finite differences need, shape (cases, coordinates · steps · 2, coordinates)."""
    points = np.asarray(points)
    axes = np.eye(points.shape[1])
    moved = [
        [point + step * axis for axis, at in zip(axes, point, strict=True) for step in _steps(at)]
        for point in points
    ]
    return jnp.asarray(moved)


def _steps(at: float) -> list[float]:
    """The signed steps that finite differences ask for."""
    return [signed for step in ladder(_first_step(at)) for signed in (step, -step)]


def _first_step(at: float) -> float:
    return 0.1 * abs(float(at)) or 0.1


def _cases(row: Row) -> dict[str, Case]:
    return {n: c for n, c in CASES.items() if not c.rooted or "eps_root" in row.settings}


def _hyper(row: Row) -> dict[str, Any]:
    settings = {name: jnp.asarray(float(value)) for name, value in row.settings.items()}
    return {"settings": settings, "start": jax.tree.map(jnp.asarray, START)}


def _point(row: Row, case: Case) -> jax.Array:
    hyper = _hyper(row)
    if "eps_root" in row.settings and not case.rooted:
        hyper["settings"]["eps_root"] = jnp.zeros(())
    return ravel_pytree(hyper)[0]


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    table = {name: measured(row) for name, row in ROWS.items()}
    about = {"optax": optax.__version__, "horizon": HORIZON}
    text = json.dumps({**about, "optimisers": table}, indent=1)
    STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
