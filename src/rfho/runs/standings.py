"""Where a member of a run stands, taken apart into arrays and words for a snapshot, and put together again."""

from typing import Any, NamedTuple

import equinox as eqx
import jax

from rfho.checks import Kind
from rfho.errors import Result
from rfho.memory import to_host
from rfho.outer import Best, Form, History, Plain, Standing, Start, Tuner
from rfho.typing import PyTree

_SEPARATOR = " "


class Shapes(NamedTuple):
    """What an estimate of a run will look like, without its numbers: the objective, and the parameters."""

    value: PyTree
    params: PyTree


def estimate_like(run: Start, standing: Standing) -> Shapes:
    """The form of an estimate; a method that is traced is traced for it, and nothing is computed."""
    state = standing.state
    if run.method.driven_from_python:
        return Shapes(0.0, params_like(run, standing))
    tuner: Any = Tuner(run.method, run.optim)
    _, estimate = eqx.filter_eval_shape(tuner.step, run.problem, state)
    return Shapes(jax.tree.map(lambda _: 0.0, estimate.value), estimate.aux.params)


def params_like(run: Start, standing: Standing) -> PyTree:
    """The form of what training gives."""

    def params(problem: Any, rest: PyTree, free: PyTree) -> PyTree:
        moment = problem.at(0, rest)
        return moment.dynamics.output(moment.init(free))

    return eqx.filter_eval_shape(params, run.problem, standing.state.rest, standing.state.free)


def form_of(standing: Standing, value: PyTree, stats: tuple[str, ...]) -> Form:
    """The form of a member's reports."""
    state = standing.state
    return Form(to_host(state.hyper), state.free, value, stats)


def arrays_of(standing: Standing) -> PyTree:
    """The arrays of a member."""
    best = standing.best and {
        "free": form_of(standing, None, ()).learned(standing.best.hyper),
        "value": standing.best.value,
        "params": standing.best.params,
    }
    arrays = {"state": standing.state, "before": standing.before, "best": best}
    return arrays if standing.safe is None else arrays | {"safe": standing.safe}


def arrays_like(start: Standing, form: Form, shapes: Shapes, *, words: dict[str, Plain]) -> PyTree:
    """The form of these arrays."""
    free = to_host(start.state.free)
    has_best = words["best"] is not None
    best = {"free": free, "value": form.value, "params": shapes.params} if has_best else None
    arrays = {"state": start.state, "before": start.state, "best": best}
    return arrays | {"safe": start.state} if words.get("safe") else arrays


def words_of(standing: Standing) -> dict[str, Plain]:
    """What there is beside them."""
    return {
        "best": None if standing.best is None else standing.best.step,
        "told": _SEPARATOR.join(sorted(kind.name for kind in standing.told)),
        "ended": None if standing.ended is None else standing.ended.name,
        "reason": standing.reason,
        "retries": standing.retries,
        "scale": standing.scale,
        "failed": standing.failed,
        "safe": standing.safe is not None,
    }


def standing_of(arrays: PyTree, words: dict[str, Plain], form: Form, history: History) -> Standing:
    """A member as it was."""
    best, step, ended = arrays["best"], words["best"], words["ended"]
    return Standing(
        state=arrays["state"],
        before=arrays["before"],
        history=history,
        best=None
        if best is None or not isinstance(step, int)
        else Best(step, form.joined(best["free"]), best["value"], best["params"]),
        told=frozenset(Kind[name] for name in str(words["told"]).split(_SEPARATOR) if name),
        ended=None if ended is None else Result[str(ended)],
        reason=str(words["reason"]),
        retries=int(words.get("retries") or 0),
        scale=float(words.get("scale") or 1.0),
        failed=int(words.get("failed") or 0),
        safe=arrays.get("safe"),
    )
